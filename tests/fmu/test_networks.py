"""Small networks: training in parts is training at once, and hidden units become rows of a head as documented."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmu_jax import Objective, datasets, forget_sets, networks
from fmu_jax.data import select_rows

SPLIT = datasets.synthetic(500, 3, seed=0)
TRAIN, TEST = SPLIT.train, SPLIT.test
MODEL = networks.Mlp(4, jnp.float64)
OBJECTIVE = Objective(l2=1e-3, fairness=1.0, predict=MODEL.apply)


@pytest.fixture(autouse=True)
def promotion():
    """As users run it: optax's optimisers mix dtypes."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def leaves(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def test_side_by_side_is_one_by_one():
    models = [MODEL.init(jax.random.key(k), TRAIN.x[:1]) for k in range(2)]
    options = {"learning_rate": 0.02}
    found = dict(networks.continue_side_by_side(OBJECTIVE, models, TRAIN, checkpoints=(0, 3, 5), **options))
    assert list(found) == [0, 3, 5]
    for k, start in enumerate(models):
        np.testing.assert_array_equal(leaves(found[0][k]), leaves(start))
        three = networks.continue_adam(OBJECTIVE, start, TRAIN, steps=3, **options)
        np.testing.assert_allclose(leaves(found[3][k]), leaves(three), rtol=1e-9)
        two_more = networks.continue_adam(OBJECTIVE, three, TRAIN, steps=2, **options)
        np.testing.assert_allclose(leaves(found[5][k]), leaves(two_more), rtol=1e-9)
    trained = networks.train_adam(OBJECTIVE, MODEL, TRAIN, jax.random.key(0), steps=3, **options)
    np.testing.assert_allclose(leaves(trained), leaves(found[3][0]), rtol=1e-9)
    with pytest.raises(ValueError, match="`checkpoints` must ascend"):
        next(networks.continue_side_by_side(OBJECTIVE, models, TRAIN, checkpoints=(3, 2), **options))


def test_hidden_units_are_scaled_row_by_row_and_end_in_a_one():
    params = MODEL.init(jax.random.key(0), TRAIN.x[:1])
    rows = networks.hidden_rows(MODEL, params, TRAIN, dtype=jnp.float32)
    first = params["params"]["first"]
    units = np.tanh(np.asarray(TRAIN.x) @ np.asarray(first["kernel"]) + np.asarray(first["bias"]))
    wanted = units / np.maximum(np.linalg.norm(units, axis=1, keepdims=True), 2.0)  # sqrt(4) units
    np.testing.assert_allclose(rows.x, np.hstack([wanted, np.ones((len(units), 1))]), rtol=1e-5)
    assert rows.x.dtype == rows.weight.dtype == jnp.float32
    np.testing.assert_array_equal(rows.y, TRAIN.y)


@pytest.mark.filterwarnings("ignore:optax.global_norm is deprecated")  # jax-privacy 2.0.0 calls it
@pytest.mark.parametrize("kind", ["raw", pytest.param("frozen", marks=pytest.mark.slow), "private"])
def test_only_private_features_have_a_price(kind):
    public, own = (select_rows(TRAIN, at) for at in forget_sets.split_public(len(TRAIN.y), 0.3, seed=0))
    options = {"width": 4, "l2": 1e-2, "epsilon": 2.0, "delta": 1e-5, "steps": 3, "key": jax.random.key(0)}
    found = networks.head_rows(kind, public, own, TEST, **options)
    assert len(found.train.y) == len(own.y)
    if kind == "raw":
        assert found.train is own
        assert found.test is TEST
    else:
        assert found.train.x.shape[1] == found.test.x.shape[1] == 5
        assert float(jnp.linalg.norm(found.train.x[:, :-1], axis=1).max()) <= 1 + 1e-12
    assert (found.price[0] > 0) == (found.price[1] > 0) == (kind == "private")
    if kind == "frozen":  # Features of public rows alone: the head's own rows have no part in them.
        other = networks.head_rows(kind, public, own._replace(y=1 - own.y), TEST, **options)
        np.testing.assert_array_equal(other.test.x, found.test.x)


def test_other_features_are_refused():
    options = {"width": 4, "l2": 1e-2, "epsilon": 2.0, "delta": 1e-5, "steps": 3, "key": jax.random.key(0)}
    with pytest.raises(ValueError, match="unknown features 'pixels'"):
        networks.head_rows("pixels", TRAIN, TRAIN, TEST, **options)
