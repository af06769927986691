"""Libraries that take long to import, imported when they are first used: ``--help`` waits for none of them.

from scripts.harness.lazy import fmu_jax, jax, jnp
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import optax
    from jax.experimental import multihost_utils

    import fmu_jax
    import fmu_jax.audit.faults
    import fmu_jax.audit.worlds
    import fmu_jax.networks
    import fmu_jax.objective
    import fmu_jax.removal.newton
    import pags_jax
    import pags_jax.datasets.lpips_weights
    import pags_jax.datasets.pretrained
    import pags_jax.models.files
else:

    class _Later:
        """Stands for a module until an attribute of it is asked for; a package gives its modules by dots as well."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, attribute: str) -> Any:
            module = importlib.import_module(self._name)
            try:
                found = getattr(module, attribute)
            except AttributeError:
                if attribute.startswith("__"):  # inspect asks every object of a module for some, doctest through it
                    raise
                found = importlib.import_module(f"{self._name}.{attribute}")
            return _Later(found.__name__) if isinstance(found, ModuleType) else found

    jax, jnp, multihost_utils = _Later("jax"), _Later("jax.numpy"), _Later("jax.experimental.multihost_utils")
    nn, optax = _Later("flax.linen"), _Later("optax")
    fmu_jax, pags_jax = _Later("fmu_jax"), _Later("pags_jax")

__all__ = ["fmu_jax", "jax", "jnp", "multihost_utils", "nn", "optax", "pags_jax"]
