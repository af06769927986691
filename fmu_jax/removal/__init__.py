"""Removing rows from a trained model: one front door, seven methods and three baselines."""

from fmu_jax.removal.methods import BASELINES, METHODS, Removal, remove
from fmu_jax.removal.sharded import fit_shards, make_shards, predict_shards

__all__ = ["BASELINES", "METHODS", "Removal", "fit_shards", "make_shards", "predict_shards", "remove"]
