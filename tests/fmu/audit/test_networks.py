"""Shadow networks: the bookkeeping, retraining at chance exactly, and a missing removal that is caught."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fmu_jax import Objective, audit, datasets, noisy_finetuning
from fmu_jax import objective as objectives
from fmu_jax.audit.networks import shadow_networks, twins

ROWS = jax.tree.map(lambda leaf: leaf[:120], datasets.synthetic(300, 4, seed=0).train)
HELD = jax.tree.map(lambda leaf: leaf[120:160], datasets.synthetic(300, 4, seed=0).train)
D = ROWS.x.shape[1]


def predict(params, x):
    return jnp.tanh(x @ params["first"]) @ params["last"]


OBJECTIVE = Objective(l2=1e-3, predict=predict)


def train(rows, key, *, steps=200):
    """Gradient descent of a tiny network."""
    params = {"first": 0.5 * jax.random.normal(key, (D, 3)), "last": jnp.ones(3)}

    def step(params, _):
        grad = objectives.gradient(OBJECTIVE, params, rows)
        return optax.tree.add_scale(params, -2.0 / 60, grad), None

    return jax.lax.scan(step, params, length=steps)[0]


def noisy(params, rows, forget, key):
    """Certified at mu = 0.5, and published as it is."""
    plan = noisy_finetuning.Schedule(start_clip=0.5, noise=2.0)
    return noisy_finetuning.finetune(OBJECTIVE, params, rows, forget, schedule=plan, key=key).params


METHODS = {
    "fair_newton": {"method": "fair_newton"},
    "last": {"method": "fair_newton", "only": "last"},
    "noisy": noisy,
}


@pytest.fixture(scope="module")
def shadow():
    planted = twins(HELD, 3, key=jax.random.key(1))
    return shadow_networks(
        OBJECTIVE, ROWS, planted, HELD, train=train, methods=METHODS, key=jax.random.key(2), pairs=40
    )


def test_twins_are_held_out_rows_with_either_label():
    planted = twins(HELD, 3, key=jax.random.key(1))
    np.testing.assert_array_equal(planted.x[:3], planted.x[3:])
    np.testing.assert_array_equal(planted.group[:3], planted.group[3:])
    np.testing.assert_array_equal(planted.y, [0, 0, 0, 1, 1, 1])
    assert all((np.asarray(HELD.x) == np.asarray(row)).all(axis=1).any() for row in planted.x)


@pytest.mark.slow
def test_each_network_holds_one_row_of_each_twin(shadow):
    assert shadow.member.shape == (40, 2, 6)
    np.testing.assert_array_equal(shadow.member[:, 0], ~shadow.member[:, 1])
    np.testing.assert_array_equal(shadow.member[..., :3], ~shadow.member[..., 3:])


@pytest.mark.slow
def test_retraining_is_at_chance_and_a_missing_removal_is_not(shadow):
    np.testing.assert_array_equal(shadow.margins["retrain"][:, 0], shadow.oracle)
    np.testing.assert_array_equal(shadow.margins["retrain"][:, 0], shadow.margins["retrain"][:, 1])
    klom, area = {}, {}
    for method, margins in shadow.margins.items():
        unlearned, unseen = audit.by_membership(margins, shadow.member)
        klom[method] = float(audit.klom(unlearned, shadow.oracle).mean())
        area[method] = float(audit.lira(unlearned, unseen, paired=True).auc.mean())
    assert klom["retrain"] == pytest.approx(0, abs=1e-9)
    assert area["retrain"] == pytest.approx(0.5)
    assert area["no_removal"] > 0.6
    # What mu = 0.5 allows is 0.638; 40 pairs are off by a few hundredths.
    assert area["noisy"] < 0.638
    noises = shadow.margins["noisy"]
    assert not np.allclose(noises[:, 0], noises[:, 1])
    assert klom["no_removal"] > 0.3


@pytest.mark.slow
def test_margins_are_those_of_the_networks_trained_one_by_one(shadow):
    """The first pair again, by hand."""
    key = jax.random.split(jax.random.key(2), 40)[0]
    for_train, for_subset, _ = jax.random.split(key, 3)
    planted = twins(HELD, 3, key=jax.random.key(1))
    rows = jax.tree.map(lambda *parts: jnp.concatenate(parts), ROWS, planted)
    subset = (jax.random.permutation(for_subset, 120) < 60).astype(rows.weight.dtype)
    weight = jnp.concatenate([subset, shadow.member[0, 0].astype(subset.dtype)])
    params = train(rows._replace(weight=weight), for_train)
    expected = (2.0 * np.asarray(planted.y) - 1) * np.asarray(predict(params, planted.x))
    np.testing.assert_allclose(shadow.margins["no_removal"][0, 0], expected, atol=1e-9)
    label, y, group = (np.asarray(part) for part in (predict(params, HELD.x) > 0, HELD.y == 1, HELD.group))
    rates = [[label[(group == g) & (y == truth)].mean() for truth in (False, True)] for g in (0, 1)]
    gap = np.abs(np.subtract(*rates)).mean()
    assert shadow.metrics["no_removal"].accuracy[0, 0] == pytest.approx((label == y).mean())
    assert shadow.metrics["no_removal"].equalized_odds_mean[0, 0] == pytest.approx(gap)


@pytest.mark.slow
def test_the_table_has_what_attacks_and_canaries_find(shadow):
    key, claims = jax.random.key(4), {"noisy": 0.5, "last": 1e-4}
    table = audit.network_table(
        OBJECTIVE, ROWS, HELD, train=train, methods=METHODS, planted=3, canaries=10, pairs=40, key=key, claims=claims
    )
    assert [row["method"] for row in table] == list(shadow.margins)
    for_rows, for_models = jax.random.split(key)
    planted = twins(HELD, 3, key=for_rows)
    again = shadow_networks(OBJECTIVE, ROWS, planted, HELD, train=train, methods=METHODS, key=for_models, pairs=40)
    wrong = audit.mislabelled(HELD, 10, key=jax.random.fold_in(for_rows, 1))
    scored = audit.score_canaries(
        OBJECTIVE, ROWS, wrong, train=train, methods=METHODS, key=jax.random.fold_in(for_models, 1)
    )
    for row in table:
        method = row["method"]
        attacks = audit.attack_columns(again.margins[method], again.member, again.oracle)
        assert {name: row[name] for name in attacks} == pytest.approx(attacks)
        assert row["accuracy"] == pytest.approx(float(again.metrics[method].accuracy.mean()))
        assert row["margin_shift"] == pytest.approx(0, abs=1e-9) if method == "retrain" else row["margin_shift"] > 0
        if method == "retrain":
            assert not any(name.startswith("one_run") for name in row)
        else:
            once = audit.one_run(scored.scores[method], scored.inside, delta=1e-5)
            assert row["one_run_epsilon"] == pytest.approx(float(once.epsilon))
        assert ("certified_auc" in row) == (method in claims)
    rows = {row["method"]: row for row in table}
    assert rows["noisy"]["certified_auc"] == pytest.approx(0.638, abs=1e-3)
    # A claim that is nearly perfect allows nothing above chance: whatever is above it is beyond.
    assert rows["last"]["beyond"] == (rows["last"]["lira_auc"] > rows["last"]["certified_auc"])
    assert rows["last"]["certified_auc"] == pytest.approx(0.5, abs=1e-4)


@pytest.mark.slow
def test_a_second_call_with_the_same_function_compiles_nothing(shadow):
    from tests.fmu.test_compilation import counted

    planted = twins(HELD, 3, key=jax.random.key(5))
    run = partial(shadow_networks, OBJECTIVE, ROWS, planted, HELD, train=train, methods=METHODS, pairs=40)
    run(key=jax.random.key(2))
    with counted() as seen:
        run(key=jax.random.key(3))
    assert not seen


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 0.0}, "`share` must lie in"),
        ({"pairs": 0}, "`pairs` and `batch_size` must be at least 1, got 0"),
        ({"methods": {"retrain": {}}}, r"the names \['retrain'\] are taken"),
    ],
)
def test_bad_input_is_refused(options, message):
    planted = twins(HELD, 3, key=jax.random.key(1))
    defaults = {"train": train, "methods": METHODS, "key": jax.random.key(0), "pairs": 4}
    with pytest.raises(ValueError, match=message):
        shadow_networks(OBJECTIVE, ROWS, planted, HELD, **defaults | options)
    with pytest.raises(ValueError, match="`positions` must be between 1 and the number of rows 40, got 41"):
        twins(HELD, 41, key=jax.random.key(0))


def test_twins_keep_the_number_of_groups():
    planted = twins(HELD._replace(groups=3), 3, key=jax.random.key(1))
    assert planted.groups == 3
    assert jax.tree.structure(planted) == jax.tree.structure(HELD._replace(groups=3))
