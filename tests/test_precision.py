"""Products in fewer bits, emulated: enough passes are float32, and what the packages ask for keeps its promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fmu_jax
from benchmarks import hlo, precision
from fmu_jax import rounding
from pags_jax import gradients, manifold, models, robustness, scores, shares
from tests.placing import put


def test_six_passes_are_float32_and_one_is_not():
    a, b = (put(np.random.default_rng(seed).normal(size=(8, 8)).astype(np.float32)) for seed in range(2))
    exact = np.asarray(a, np.float64) @ np.asarray(b, np.float64)

    def error(name):
        return np.abs(np.asarray(jax.jit(precision.emulated(lambda a, b: a @ b, name))(a, b)) - exact).max()

    np.testing.assert_array_equal(sum(precision.split(a)), a)
    assert error("highest") <= 2 * error("float32") + 1e-7
    assert error("highest") < error("high") < error("tf32") < error("default") < 0.1
    assert error("asked") == error("default")


OBJECTIVE = fmu_jax.Objective(l2=1e-3, fairness=1.0)


def table():
    data = precision.as_type(fmu_jax.datasets.synthetic(400, 3, seed=0).train, jnp.float32)
    return data, put(np.random.default_rng(0).normal(size=(8, data.x.shape[1])).astype(np.float32))


def test_residuals_are_sound_in_six_passes_and_not_in_one():
    """What a certificate widens by its rounding error, at eight models."""
    data, params = table()

    def residual(params):
        grad, margin = rounding.gradient_with_error(OBJECTIVE, params, data, params)
        return jnp.linalg.norm(grad) + margin

    true = np.asarray([precision.true_residual(OBJECTIVE, one, data, data.weight, one) for one in params])
    wide, narrow = (
        jax.jit(precision.emulated(lambda params: jax.lax.map(residual, params), name))(params)
        for name in ("highest", "default")
    )
    assert (np.asarray(wide) >= true).all()
    assert (np.asarray(narrow) < true).any()


def test_input_gradients_in_six_passes_are_those_of_float32():
    x = put(np.random.default_rng(0).uniform(size=(2, 6, 6, 1)).astype(np.float32))
    model = models.LeNet(classes=3, width=0.1)
    variables = models.init(model, x, key=jax.random.key(0))

    def gradient(x):
        return gradients.input_gradients(models.evaluator(model, variables), x, target="logit_sum")

    exact, wide, narrow = (
        np.asarray(jax.jit(precision.emulated(gradient, name))(x)) for name in ("float32", "highest", "default")
    )
    np.testing.assert_allclose(wide, exact, atol=3e-6 * np.abs(exact).max())
    assert np.abs(narrow - exact).max() > 1e-4 * np.abs(exact).max()


WEIGHTS = put(np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32))
X, NOISE = (put(np.random.default_rng(seed).uniform(size=(2, 4)).astype(np.float32)) for seed in (1, 2))
BASIS = put(np.eye(4, dtype=np.float32)[None, :1].repeat(2, axis=0))
KEY = jax.random.key(0)


def model(x, sigma=None):
    del sigma
    return jnp.tanh(x @ WEIGHTS)


def certify(noise):
    """The certificate of a removal that left the parameters at zero."""
    data = table()[0]
    forgotten = jnp.arange(len(data.y)) < 20
    left = data._replace(weight=jnp.where(forgotten, 0, data.weight))
    at, one = jnp.zeros_like(noise), jnp.ones((), jnp.int32)
    removal = fmu_jax.Removal(at, left, forgotten, at, jnp.bool_(True), jnp.float32(0), one)
    return fmu_jax.certify(OBJECTIVE, at, removal, sigma=1.0, delta=1e-5, noise=noise)


ASKING = {
    "certify": certify,
    "manifold_robustness": lambda x: robustness.manifold_robustness(model, x, BASIS, eps_l2=0.5, noise=NOISE),
    "relative_noise_robustness": lambda x: robustness.relative_noise_robustness(
        model, x, jnp.ones(x.shape, bool), sigma=0.1, noise=NOISE
    ),
    "off_manifold_share_by_noise": lambda x: shares.off_manifold_share_by_noise(
        lambda x: model(x)[:, 0], x, BASIS, sigma=0.1, noise=NOISE
    ),
    "bayes_gradient": lambda x: scores.bayes_gradient(model, lambda x, sigma: x @ WEIGHTS, x, sigma_pm1=0.5),
    "tangent_basis": lambda x: manifold.tangent_basis(model, x),
    "denoiser_basis": lambda x: manifold.denoiser_basis(model, x, sigma_pm1=0.5, rank=2, key=KEY, iterations=2),
}  # fmt: skip


def products(jaxpr):
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            yield eqn.params["precision"]
        for inner in hlo.programs(eqn.params):
            yield from products(inner)


@pytest.mark.parametrize("name", ASKING)
def test_certificates_and_measures_that_take_differences_ask_for_all_bits(name):
    given = X[0] if name == "certify" else X
    asked = list(products(jax.make_jaxpr(ASKING[name])(given).jaxpr))
    assert asked
    assert set(asked) == {(jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)}
