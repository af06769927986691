"""Sums over places and their transpose, against NumPy and ``jax.numpy``, under every transformation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pags_jax.channels import channel_spread, channel_sum

X = np.random.default_rng(0).standard_normal((8, 3, 2, 5))


def ours(x):
    return jnp.sin(x * channel_spread(channel_sum(x * x), x.shape[:-1])).sum()


def reference(x):
    return jnp.sin(x * jnp.sum(x * x, axis=tuple(range(x.ndim - 1)), keepdims=True)).sum()


def squared_gradient(f):
    return lambda x: jnp.sum(jax.grad(f)(x) ** 2)


TRANSFORMS = {
    "value": lambda f: f,
    "gradient": jax.grad,
    "double backward": lambda f: jax.grad(squared_gradient(f)),
    "forward over reverse": lambda f: lambda x: jax.jvp(jax.grad(f), (x,), (jnp.cos(x),))[1],
    "vmap": lambda f: jax.vmap(jax.grad(f)),
    "vmap over the last axis": lambda f: jax.vmap(jax.grad(f), in_axes=-1, out_axes=-1),
    "jacobian": lambda f: jax.hessian(lambda row: f(row[None])),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_transforms_equal_those_of_sums(transform):
    x = jnp.asarray(X[0, 0] if transform == "jacobian" else X)
    found, expected = (jax.jit(TRANSFORMS[transform](f))(x) for f in (ours, reference))
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


def test_values_equal_numpy_eager_jitted_and_sharded():
    expected = X.sum((0, 1, 2))
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    spread = jax.device_put(X, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data")))
    for total in (channel_sum(jnp.asarray(X)), jax.jit(channel_sum)(X), jax.jit(channel_sum)(spread)):
        np.testing.assert_allclose(total, expected, rtol=1e-12)
    np.testing.assert_array_equal(channel_spread(jnp.arange(5.0), (2, 3)), np.broadcast_to(np.arange(5.0), (2, 3, 5)))


def test_a_cpu_sums_by_products_and_others_by_sums():
    lowered = {
        platform: jax.jit(jax.grad(lambda x: jnp.sum(channel_sum(x) ** 2) + jnp.sum(channel_spread(x[0, 0, 0], (9,)))))
        .trace(jnp.asarray(X))
        .lower(lowering_platforms=(platform,))
        .as_text()
        for platform in ("cpu", "cuda")
    }
    assert "dot_general" in lowered["cpu"]
    assert "dot_general" not in lowered["cuda"]
