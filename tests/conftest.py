"""What tests of several folders share."""

import jax
import pytest

from tests import strict


@pytest.fixture(scope="module")
def optimised():
    """XLA's optimiser, for tests that compute for longer than they compile; see `tests/strict.py`."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", strict.COMPILER == "quick")


@pytest.fixture
def users_numerics():
    """JAX as a user finds it, not under the strict numerics of the tests."""
    defaults = {"jax_enable_x64": False, "jax_numpy_dtype_promotion": "standard", "jax_numpy_rank_promotion": "allow"}
    before = {name: getattr(jax.config, name) for name in defaults}
    for name, value in defaults.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
