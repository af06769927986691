"""One convolution, its derivatives of every order and kind against ``jax.lax``'s own, and in which terms they are."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate2d

from pags_jax.convolution import LAYOUT, conv_general_dilated, convolve

GEOMETRIES = [
    ((1, 1), "SAME"),
    ((2, 2), ((1, 1), (1, 1))),
    ((1, 1), "VALID"),
    ((2, 1), ((0, 2), (1, 0))),
]


def images(shape=(3, 7, 6, 2), kernel=(3, 2, 2, 4), dtype=np.float64):
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.standard_normal(shape), dtype), jnp.asarray(rng.standard_normal(kernel), dtype)


def objectives(strides, padding):
    """The same scalar function of images and kernel, through our convolution and through XLA's."""

    def ours(x, w):
        return jnp.sin(convolve(x, w, strides=strides, padding=padding)).sum()

    def reference(x, w):
        return jnp.sin(jax.lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=LAYOUT)).sum()

    return ours, reference


def squared_gradient(f):
    return lambda x, w: jnp.sum(jax.grad(f)(x, w) ** 2)


TRANSFORMS = {
    "value": lambda f: f,
    "gradients": lambda f: jax.grad(f, (0, 1)),
    "double backward": lambda f: jax.grad(squared_gradient(f), (0, 1)),
    "triple backward": lambda f: jax.grad(squared_gradient(squared_gradient(f)), (0, 1)),
    "forward over reverse": lambda f: lambda x, w: jax.jvp(jax.grad(f, (0, 1)), (x, w), (x, w))[1],
    "per-example image gradients": lambda f: lambda x, w: jax.vmap(lambda x: jax.grad(f)(x[None], w))(x),
    "per-example kernel gradients": lambda f: lambda x, w: jax.vmap(lambda x: jax.grad(f, 1)(x[None], w))(x),
    "a batch of kernels": lambda f: lambda x, w: jax.vmap(lambda s: jax.grad(f, (0, 1))(x, s * w))(jnp.arange(1.0, 3)),
    "jacfwd": lambda f: lambda x, w: jax.jacfwd(lambda w: jax.grad(f)(x, w))(w),
    "jacrev": lambda f: lambda x, w: jax.jacrev(lambda x: jax.grad(f, 1)(x, w))(x),
}


@pytest.mark.parametrize(
    ("channels", "strides", "padding", "transform"),
    # Everything for the strided one; for the others what has a geometry: the three forms, all in the double backward.
    [(2, *geometry, transform) for geometry in GEOMETRIES[1:2] for transform in TRANSFORMS]
    + [(2, *geometry, "double backward") for geometry in (GEOMETRIES[0], *GEOMETRIES[2:])]
    # One channel has formulas of its own on CPUs.
    + [(1, *geometry, "double backward") for geometry in (*GEOMETRIES[:3], ((1, 1), ((0, 2), (1, 0))))]
    + [(1, *GEOMETRIES[0], "a batch of kernels")],
)
def test_derivatives_of_every_kind_equal_those_of_xla(channels, strides, padding, transform):
    values = images((3, 7, 6, channels), (3, 2, channels, 4))
    found, expected = (jax.jit(TRANSFORMS[transform](f))(*values) for f in objectives(strides, padding))
    for ours, reference in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-9, atol=1e-9 * float(jnp.max(jnp.abs(reference))))


def test_values_equal_scipy():
    x, w = images()
    out = np.asarray(convolve(x, w, padding="VALID"))
    for n, k in np.ndindex(3, 4):
        expected = sum(correlate2d(x[n, :, :, c], w[:, :, c, k], mode="valid") for c in range(2))
        np.testing.assert_allclose(out[n, :, :, k], expected, rtol=1e-12, atol=1e-12)


def test_derivatives_stay_among_the_three_forms():
    """However often it is differentiated: XLA's own formulas for a second derivative are what is slow."""
    ours, _ = objectives((2, 2), ((1, 1), (1, 1)))
    jaxpr = str(jax.make_jaxpr(TRANSFORMS["triple backward"](ours))(*images()))
    assert "convolve_by_kernel" in jaxpr
    assert "convolve_by_image" in jaxpr
    assert "conv_general_dilated" not in jaxpr


def test_vmapped_images_are_one_larger_batch():
    x, w = images((4, 3, 7, 6, 2))
    jaxpr = str(jax.make_jaxpr(jax.vmap(lambda x: convolve(x, w)))(x))
    assert "12,7,6,2" in jaxpr.replace(" ", "")
    np.testing.assert_array_equal(jax.vmap(lambda x: convolve(x, w))(x), jnp.stack([convolve(part, w) for part in x]))


def test_eager_calls_jit_and_shards_agree():
    x, w = images((8, 7, 6, 2))
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    spread = jax.device_put(x, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data")))
    gradients = jax.jit(jax.grad(lambda x, w: jnp.sum(convolve(x, w) ** 2), (0, 1)))
    for one, many in zip(gradients(x, w), gradients(spread, w), strict=True):
        np.testing.assert_allclose(one, many, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(convolve(x, w), jax.jit(convolve)(x, w))


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_dtypes_stay(dtype):
    x, w = images(dtype=dtype)
    value, pull = jax.vjp(lambda x, w: convolve(x, w), x, w)
    assert {value.dtype, *(g.dtype for g in pull(value))} == {jnp.dtype(dtype)}


def test_flax_layers_take_it():
    x, _ = images((2, 8, 8, 3), dtype=np.float32)
    layers = [nn.Conv(5, (3, 3), strides=2, conv_general_dilated=c) for c in (None, conv_general_dilated)]
    variables = layers[0].init(jax.random.key(0), x)
    np.testing.assert_allclose(*(layer.apply(variables, x) for layer in layers), rtol=1e-6, atol=1e-6)
    for options in ({"kernel_dilation": 2}, {"feature_group_count": 3, "features": 6}, {"input_dilation": 2}):
        layer = nn.Conv(
            **{"features": 5, "kernel_size": (3, 3), "conv_general_dilated": conv_general_dilated, **options}
        )
        with pytest.raises(ValueError, match="neither dilations nor groups nor a precision"):
            layer.init(jax.random.key(0), x)


def test_precision_is_that_of_the_place_of_the_call():
    """The context is over when the program is lowered, and is asked for all the same, by derivatives too."""

    def highest(x, kernel):
        with jax.default_matmul_precision("highest"):
            return convolve(x, kernel).sum()

    x, kernel = jnp.ones((2, 6, 6, 3)), jnp.ones((3, 3, 3, 4))
    text = jax.jit(jax.value_and_grad(highest, (0, 1))).lower(x, kernel).as_text()
    precisions = [line for line in text.splitlines() if "precision_config" in line or "precision HIGHEST" in line]
    assert len(precisions) == text.count("stablehlo.convolution(")
    assert all("HIGHEST" in line for line in precisions)
    plain = jax.jit(lambda x, kernel: convolve(x, kernel)).lower(x, kernel).as_text()
    assert "HIGHEST" not in plain
