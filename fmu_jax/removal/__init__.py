"""Removing rows from a trained model: one front door, seven methods and five that experiments name themselves."""

from fmu_jax.removal.hessian_free import Recollection, recollect
from fmu_jax.removal.methods import BASELINES, METHODS, Removal, remove
from fmu_jax.removal.sharded import Ensemble, fit_ensemble, fit_shards, make_shards, predict_shards

__all__ = [
    "BASELINES",
    "METHODS",
    "Ensemble",
    "Recollection",
    "Removal",
    "fit_ensemble",
    "fit_shards",
    "make_shards",
    "predict_shards",
    "recollect",
    "remove",
]
