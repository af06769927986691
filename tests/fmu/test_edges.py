"""Inputs that must be refused, or must not do harm, wherever they enter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmu_jax import (
    NotConvergedError,
    Objective,
    certify,
    datasets,
    fairness_interval,
    fit,
    make_data,
    privacy,
    remove,
)
from fmu_jax import objective as objectives
from fmu_jax.metrics import group_metrics
from fmu_jax.penalties import from_scores
from fmu_jax.removal import fit_shards, make_shards
from fmu_jax.thresholds import fit_thresholds
from tests import oracles
from tests.placing import put

DATA = datasets.synthetic(400, 4, seed=0).train
N = len(DATA.y)
OBJECTIVE = Objective(l2=1e-2, fairness=1.0)
# By NumPy: what a module makes with JAX, every worker compiles, whatever it runs.
PARAMS = put(oracles.minimise(*map(np.asarray, (DATA.x, DATA.y, DATA.group, DATA.weight)), 1e-2, 1.0))
SHARD = make_shards(N, 4, key=jax.random.key(0))


def in_float32(tree):
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if leaf.dtype == jnp.float64 else leaf, tree)


@pytest.mark.parametrize("options", [{"solver": "cg"}, {"gauss_newton": True}])
def test_matrix_free_removal_reaches_its_default_tolerance_in_float32(options):
    removal = remove(OBJECTIVE, in_float32(PARAMS), in_float32(DATA), [1, 2, 3], **options)
    exact = remove(OBJECTIVE, PARAMS, DATA, [1, 2, 3]).params
    np.testing.assert_allclose(removal.params, exact, atol=1e-3)


def test_every_matrix_product_of_a_guarantee_is_exact():
    """Accelerators round float32 operands unless told not to; the rounding margin assumes that they do not."""

    def whole(data, forget, noise):
        removal = remove(OBJECTIVE, PARAMS, data, forget, noise=noise)
        certificate = certify(OBJECTIVE, PARAMS, removal, sigma=1.0, delta=1e-5, noise=noise)
        return fit(OBJECTIVE, data).params, certificate, fairness_interval(OBJECTIVE, removal, data, noise=noise)

    shown = str(jax.make_jaxpr(whole)(DATA, jnp.zeros(N, bool), PARAMS))
    assert shown.count("dot_general[") > 10
    assert shown.count("dot_general[") == shown.count("precision=(Precision.HIGHEST, Precision.HIGHEST)")


@pytest.mark.parametrize(
    "wrong", [np.asarray(SHARD)[:, :-1], np.zeros_like(SHARD), make_shards(N + 4, 4, key=jax.random.key(0))]
)
def test_shards_of_other_rows_are_refused(wrong):
    with pytest.raises(ValueError, match=f"each of the {N} rows once"):
        fit_shards(OBJECTIVE, DATA, put(wrong))


def test_shards_are_checked():
    plain = Objective(l2=1e-2)
    with pytest.raises(ValueError, match="a model for each shard"):
        remove(plain, PARAMS, DATA, [1], method="sharded", shard=SHARD)
    with pytest.raises(ValueError, match="NaN or infinite"):
        fit_shards(plain, DATA._replace(x=DATA.x.at[3, 1].set(jnp.nan)), SHARD)
    with pytest.raises(ValueError, match="linear model only"):
        fit_shards(Objective(l2=1e-2, predict=lambda params, x: x @ params), DATA, SHARD)
    with pytest.raises(NotConvergedError, match="a shard stopped"):
        fit_shards(Objective(l2=0.0), DATA._replace(x=DATA.x.at[:, 1].set(0.0)), SHARD)


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        (np.asarray(DATA.x) @ np.asarray(PARAMS), "labels 0 and 1, got float64"),
        (np.where(np.asarray(DATA.y) > 0, 1, -1), "other entries"),
        ([0, 1], "shape"),
    ],
)
def test_predictions_must_be_labels(prediction, message):
    with pytest.raises(ValueError, match=message):
        group_metrics(prediction, DATA)


def test_predictions_may_be_a_list():
    assert group_metrics(np.asarray(DATA.y).tolist(), DATA).accuracy == 1


def test_intervals_check_rows_and_noise():
    removal = remove(OBJECTIVE, PARAMS, DATA, [1])
    for data in (DATA._replace(y=2 * DATA.y - 1), DATA._replace(x=DATA.x.at[0, 0].set(jnp.nan))):
        with pytest.raises(ValueError, match="in the data"):
            fairness_interval(OBJECTIVE, removal, data)
    with pytest.raises(ValueError, match="`noise` must have shape"):
        fairness_interval(OBJECTIVE, removal, DATA, noise=jnp.ones(()))


def test_a_singular_hessian_keeps_the_last_good_point():
    data = DATA._replace(x=DATA.x.at[:, 0].set(0.0))
    result = fit(Objective(l2=0.0), data, throw=False)
    assert not result.converged
    assert np.isfinite(result.params).all()
    assert np.isfinite(result.grad_norm)


def test_numpy_rows_are_taken_in_jax_precision():
    rows = jax.tree.map(np.asarray, DATA)
    np.testing.assert_array_equal(fit(OBJECTIVE, rows).params, fit(OBJECTIVE, DATA).params)
    with jax.enable_x64(False):
        assert fit(OBJECTIVE, rows).params.dtype == jnp.float32


def test_half_precision_becomes_float32_which_holds_it_exactly():
    half = DATA._replace(x=DATA.x.astype(jnp.bfloat16), weight=DATA.weight.astype(jnp.bfloat16))
    single = half._replace(x=half.x.astype(jnp.float32), weight=half.weight.astype(jnp.float32))
    found = fit(OBJECTIVE, half).params
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, fit(OBJECTIVE, single).params)


def test_traced_indices_do_not_wrap_around():
    forgotten = jax.jit(lambda rows: remove(OBJECTIVE, PARAMS, DATA, rows).forgotten)(jnp.array([-1, N, 5]))
    np.testing.assert_array_equal(np.flatnonzero(forgotten), [5])
    with pytest.raises(ValueError, match="boolean mask"):
        jax.jit(lambda mask: remove(OBJECTIVE, PARAMS, DATA, mask).params)(jnp.ones(1, bool))


def test_privacy_at_its_edges():
    assert privacy.certified_epsilon(0.0, 1.0, 1e-5) == 0
    assert privacy.gaussian_epsilon(1.0, 1.0, jnp.array([1e-5, 1e-3])).shape == (2,)
    with pytest.raises(ValueError, match="`residual` is a norm"):
        privacy.epsilon_from(-1.0, 1.0, 1e-5)


def test_scores_far_from_zero_do_not_cancel():
    assert 0 <= float(from_scores("individual", jnp.full(N, 1000.1, jnp.float32), in_float32(DATA))) < 1e-3


def test_thresholds_of_a_group_without_positives_stay_at_zero():
    data = make_data(np.zeros((6, 1)), [0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1])
    assert float(fit_thresholds(jnp.array([-1.0, 1.0, -2.0, 1.0, 2.0, 3.0]), data)[1]) == 0


@pytest.mark.parametrize("name", ["steps", "max_steps"])
def test_steps_are_whole_numbers(name):
    with pytest.raises(ValueError, match=f"`{name}` must be a whole number"):
        remove(OBJECTIVE, PARAMS, DATA, [1], **{name: 2.5})


def test_the_hint_fits_the_failure():
    with pytest.raises(NotConvergedError, match="raise `max_steps`"):
        remove(OBJECTIVE, PARAMS, DATA, [1], solver="cg", max_steps=1)


def test_labels_that_are_words_are_named():
    with pytest.raises(ValueError, match="`y` must hold numbers, got text such as 'a'; "):
        make_data(np.zeros((2, 1)), ["a", "b"], [0, 1])


def test_forgetting_nothing_repairs_an_unconverged_start():
    start = PARAMS + 0.1
    repaired = remove(OBJECTIVE, start, DATA, []).params
    assert float(optimum_gap(repaired)) < 0.1 * float(optimum_gap(start))


def optimum_gap(params):
    return jnp.linalg.norm(objectives.gradient(OBJECTIVE, params, DATA))
