"""DP-SGD through jax-privacy: the guarantee that was asked for, gradients clipped by row, noise of the stated scale."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmu_jax import private_training

pytest.importorskip("jax_privacy")
pytestmark = pytest.mark.filterwarnings("ignore:optax.global_norm is deprecated")  # jax-privacy 2.0.0 calls it
ROWS = jnp.asarray(np.random.default_rng(0).normal(size=(400, 3)), jnp.float32)
START = jnp.zeros(3, jnp.float32)


@pytest.fixture(autouse=True)
def library_promotion():
    """jax-privacy and optax mix dtypes, so strict promotion cannot be asked of them."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def linear(params, row):
    """Its gradient is the row."""
    return params @ row


def train(loss=linear, rows=ROWS, **options):
    defaults = {"key": jax.random.key(0), "epsilon": 2.0, "delta": 1e-5, "steps": 5, "batch": 40}
    return private_training.train_private(loss, START, rows, **defaults | options)


@pytest.mark.slow
def test_reaches_the_guarantee_and_not_much_less():
    fit = train()
    assert 1.9 < fit.epsilon <= 2.0 + 1e-6
    assert fit.delta == 1e-5
    stricter = train(epsilon=1.0)
    assert stricter.noise_multiplier > fit.noise_multiplier
    assert train(steps=20).noise_multiplier > fit.noise_multiplier


def test_the_gaussian_mechanism_is_recovered_where_every_row_is_drawn():
    """One step with all rows is the Gaussian mechanism, whose exact trade-off is known (Balle & Wang 2018)."""
    from fmu_jax import privacy

    fit = train(steps=1, batch=400, epsilon=1.0)
    exact = float(privacy.gaussian_epsilon(1.0, fit.noise_multiplier, 1e-5))
    assert fit.epsilon == pytest.approx(exact, rel=0.01)
    assert fit.batch_sizes.tolist() == [400]


def test_one_row_moves_the_summed_gradient_by_the_clipping_norm_at_most():
    from jax_privacy import clipping

    far = jnp.concatenate([1e6 * ROWS[:1], ROWS[1:]])
    summed = clipping.clipped_grad(
        lambda p, row, w: w * linear(p, row), l2_clip_norm=0.5, batch_argnums=(1, 2), keep_batch_dim=False
    )
    ones = jnp.ones(400, jnp.float32)
    moved = summed(START, far, ones) - summed(START, far, ones.at[0].set(0))
    assert float(jnp.linalg.norm(moved)) == pytest.approx(0.5, rel=1e-4)
    norms = jnp.linalg.norm(ROWS, axis=1, keepdims=True)
    expected = (ROWS / jnp.maximum(norms / 0.5, 1)).sum(axis=0)
    np.testing.assert_allclose(summed(START, ROWS, ones), expected, rtol=1e-4)


def test_batches_are_poisson_draws_of_the_expected_size():
    sizes = train(steps=200, epsilon=8.0).batch_sizes
    assert sizes.std() > 3
    assert sizes.mean() == pytest.approx(40, abs=2)


@pytest.mark.slow
def test_learns_where_the_noise_allows_and_repeats_by_its_key():
    target = jnp.asarray([1.0, -2.0, 0.5], jnp.float32)

    def squared(params, row):
        return (row @ params - row @ target) ** 2

    options = {"loss": squared, "epsilon": 50.0, "steps": 200, "batch": 200, "learning_rate": 0.05}
    fits = [train(**options).params for _ in range(2)]
    np.testing.assert_array_equal(*fits)
    np.testing.assert_allclose(fits[0], target, atol=0.3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": 0.0}, "`epsilon` must be positive"),
        ({"delta": 1.0}, "`delta` must lie"),
        ({"batch": 401}, "`batch` must"),
    ],
)
def test_bad_numbers_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        train(**options)
