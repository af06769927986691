"""What tests of several folders share."""

import jax
import pytest


@pytest.fixture
def users_numerics():
    """JAX as a user finds it, not under the strict numerics of the tests."""
    defaults = {"jax_enable_x64": False, "jax_numpy_dtype_promotion": "standard", "jax_numpy_rank_promotion": "allow"}
    strict = {name: getattr(jax.config, name) for name in defaults}
    for name, value in defaults.items():
        jax.config.update(name, value)
    yield
    for name, value in strict.items():
        jax.config.update(name, value)
