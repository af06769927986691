"""Samplers against closed forms, and in-painting against the conditional distribution of a normal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pags_jax import sampling, scores

RNG = np.random.default_rng(0)


def of_a_normal(mean, covariance):
    """E[clean | noisy] of data N(mean, covariance), images of one row."""
    values, vectors = np.linalg.eigh(covariance)

    def denoise(x, sigma):
        flat = x.reshape(x.shape[0], -1) - mean[None]
        shrunk = (flat @ vectors) * (values / (values + sigma**2))[None]
        return (mean[None] + shrunk @ vectors.T).reshape(x.shape)

    return denoise


def test_eulers_error_is_of_first_order_and_heuns_of_second():
    denoise = of_a_normal(np.zeros(3), 0.25 * np.eye(3))
    x = jnp.asarray(RNG.normal(size=(4, 1, 3, 1)))
    expected = 5 * np.asarray(x) * np.sqrt((0.25 + 0.1**2) / (0.25 + 5**2))
    for step, order in ((sampling.euler_step, 1), (scores.heun_step, 2)):
        errors = [
            np.abs(scores.sample(denoise, x, np.geomspace(5.0, 0.1, steps), step=step) - expected).max()
            for steps in (60, 120)
        ]
        assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.15)


def test_eulers_last_step_ends_at_what_is_denoised():
    denoise = of_a_normal(np.ones(2), np.diag([1.0, 4.0]))
    x = jnp.asarray(RNG.normal(size=(2, 1, 2, 1)))
    np.testing.assert_allclose(sampling.euler_step(denoise, x, 0.3, 0.0), denoise(x, 0.3), rtol=1e-12)


@pytest.mark.slow
def test_in_painting_keeps_what_is_known_and_tends_to_the_conditional_distribution():
    mean, covariance = np.array([0.1, -0.2]), np.array([[0.25, 0.2], [0.2, 0.25]])
    n = 4000
    x = jnp.broadcast_to(jnp.array([0.6, np.nan]).reshape(1, 1, 2, 1), (n, 1, 2, 1))
    known = np.array([True, False]).reshape(1, 1, 2, 1)
    levels = scores.noise_schedule(15, sigma_max=5.0)
    step = jax.jit(scores.heun_step, static_argnums=0)
    denoise = of_a_normal(mean, covariance)
    conditional = mean[1] + 0.8 * (0.6 - mean[0])
    errors = []
    for repeats in (1, 30):
        found = sampling.inpaint(denoise, x, known, levels, key=jax.random.key(1), repeats=repeats, step=step)
        assert (found[:, 0, 0, 0] == 0.6).all()
        errors.append(abs(float(found[:, 0, 1, 0].mean()) - conditional))
        deviation = float(found[:, 0, 1, 0].std())
    assert errors[1] < 0.02 < 0.1 < errors[0]
    assert deviation == pytest.approx(np.sqrt(0.25 - 0.2**2 / 0.25), rel=0.15)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"known": np.ones((1, 1, 2, 1))}, "`known` must be true or false"),
        ({"known": np.ones((3, 1, 2, 1), bool)}, "`known` must be true or false"),
        ({"levels": np.array([2.0, 1.0])}, "`levels` must fall to 0"),
        ({"levels": np.array([1.0, 2.0, 0.0])}, "`levels` must fall to 0"),
        ({"repeats": 0}, "`repeats` must be a whole number"),
    ],
)
def test_what_cannot_be_in_painted_is_refused(change, said):
    given = {"known": np.ones((1, 1, 2, 1), bool), "levels": scores.noise_schedule(3), "repeats": 1, **change}
    with pytest.raises(ValueError, match=said):
        sampling.inpaint(lambda x, sigma: x, jnp.ones((2, 1, 2, 1)), **given, key=jax.random.key(0))
