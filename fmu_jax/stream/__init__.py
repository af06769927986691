"""Streaming removal: deletions one by one, certified at a cost independent of the number of rows."""

from fmu_jax.stream.costs import perturbation_costs, release_costs, retraining_costs, series_costs, spread
from fmu_jax.stream.exact import epsilon_curve, exact_residuals
from fmu_jax.stream.publishing import distance_to_retrained, serve_releases
from fmu_jax.stream.retrained import beside_retrained, fairness_interval, retrained_region
from fmu_jax.stream.series import (
    Perturbed,
    Published,
    Series,
    published_after,
    refreshes_of,
    serve_for_releases,
    serve_perturbed,
)
from fmu_jax.stream.serving import Batch, Served, serve, serve_batches, take
from fmu_jax.stream.state import State, delete, needs_refresh, refresh, start

__all__ = [
    "Batch",
    "Perturbed",
    "Published",
    "Series",
    "Served",
    "State",
    "beside_retrained",
    "delete",
    "distance_to_retrained",
    "epsilon_curve",
    "exact_residuals",
    "fairness_interval",
    "needs_refresh",
    "perturbation_costs",
    "published_after",
    "refresh",
    "refreshes_of",
    "release_costs",
    "retrained_region",
    "retraining_costs",
    "series_costs",
    "serve",
    "serve_batches",
    "serve_for_releases",
    "serve_perturbed",
    "serve_releases",
    "spread",
    "start",
    "take",
]
