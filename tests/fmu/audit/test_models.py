"""Audits of real removals: the certificate holds, doing nothing is caught, retraining ranks best."""

import functools

import jax
import numpy as np
import pytest

from fmu_jax import Data, Objective, audit, datasets, fit, privacy
from fmu_jax.objective import gradient
from fmu_jax.removal import METHODS
from tests.placing import put

OBJECTIVE = Objective(l2=1e-3, fairness=1.0)
DATA = datasets.synthetic(600, 4, seed=0).train
FORGET = np.flatnonzero(np.asarray(DATA.group) == 1)[:40]


@functools.cache
def draws():
    methods = ("fair_newton", "retrain", audit.NO_REMOVAL)
    return audit.draw_models(OBJECTIVE, DATA, FORGET, key=jax.random.key(0), sigma=1.0, models=2000, methods=methods)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fair_newton", "retrain"])
def test_the_certificate_holds_in_fact(method):
    found = audit.empirical_epsilon(draws().unlearned[method], draws().retrained, delta=1e-5, key=jax.random.key(1))
    certified = privacy.certified_epsilon(float(draws().residual[method].max()), 1.0, 1e-5)
    # The bound is valid at 95 %; a bound of 0.02 from so few models is what chance alone may give.
    assert float(found.epsilon) <= max(float(certified), 0.02)


@pytest.mark.slow
def test_doing_nothing_is_caught():
    """The epsilon that fair Newton certifies is far exceeded by parameters returned unchanged."""
    found = audit.empirical_epsilon(
        draws().unlearned[audit.NO_REMOVAL], draws().retrained, delta=1e-5, key=jax.random.key(1)
    )
    claimed = privacy.certified_epsilon(float(draws().residual["fair_newton"].max()), 1.0, 1e-5)
    assert float(found.epsilon) > 2 * float(claimed)
    assert np.asarray(draws().unlearned[audit.NO_REMOVAL] == draws().trained).all()


@pytest.mark.slow
def test_every_attack_ranks_retraining_best_and_nothing_worst():
    planted = audit.plant(DATA, 6, key=jax.random.key(2))
    shadow = audit.shadow_models(OBJECTIVE, DATA, planted, key=jax.random.key(3), sigma=1.0, pairs=64)
    assert (np.asarray(shadow.member).sum(axis=1) == 1).all()
    measured = {}
    for method in audit.AUDITED:
        unlearned, unseen = audit.by_membership(shadow.margins[method], shadow.member)
        models = (-1, planted.x.shape[0])
        losses = jax.nn.softplus(-shadow.margins[method]).reshape(models)
        measured[method] = (
            abs(float(audit.lira(unlearned, unseen, paired=True).auc.mean()) - 0.5),
            float(audit.klom(unlearned, shadow.oracle[method]).mean()),
            abs(float(audit.membership(losses, shadow.member.reshape(models)).auc.mean()) - 0.5),
        )
    assert set(measured) == {*METHODS, audit.NO_REMOVAL}
    worst = measured.pop(audit.NO_REMOVAL)
    best = measured["retrain"]
    assert best[1] == 0
    assert best[2] < 1e-12
    for method, values in measured.items():
        for value, low, high in zip(values, best, worst, strict=True):
            assert low - 0.05 <= value < high, (method, measured, worst)


@pytest.mark.slow
def test_compas_the_certificate_holds_and_doing_nothing_breaks_it():
    train = datasets.load("compas", group="race", seed=0).train
    forget = np.flatnonzero(np.asarray(train.group) == 0)[:200]
    objective = Objective(l2=1e-4, fairness=1.0)
    methods = ("fair_newton", audit.NO_REMOVAL)
    models = audit.draw_models(objective, train, forget, key=jax.random.key(0), sigma=1.0, models=1000, methods=methods)
    found = {
        method: float(
            audit.empirical_epsilon(
                models.unlearned[method], models.retrained, delta=1e-5, key=jax.random.key(1)
            ).epsilon
        )
        for method in methods
    }
    certified = float(privacy.certified_epsilon(float(models.residual["fair_newton"].max()), 1.0, 1e-5))
    assert found["fair_newton"] <= max(certified, 0.02)
    assert found[audit.NO_REMOVAL] > 10 * certified


@pytest.mark.slow
def test_draws_are_the_models_that_fit_and_remove_make():
    """The shortcut to the optimum changes no model, and what is certified is the gradient on what remains."""
    models = draws()
    mask = np.zeros(len(DATA.y), bool)
    mask[FORGET] = True
    rest = DATA._replace(weight=put(1.0 - mask))
    perturbation = jax.jit(lambda params, rows: -gradient(OBJECTIVE, params, rows))
    trained, unlearned = np.asarray(models.trained), jax.tree.map(np.asarray, models.unlearned)
    # Without knowledge of the draws: a perturbation is the negative gradient at a trained optimum.
    for model in range(3):
        noise = perturbation(trained[model], DATA)
        again = fit(OBJECTIVE, DATA, noise=noise).params
        np.testing.assert_allclose(trained[model], again, atol=1e-7)
        np.testing.assert_allclose(unlearned["retrain"][model], fit(OBJECTIVE, rest, noise=noise).params, atol=1e-7)
        grad = noise - perturbation(unlearned["fair_newton"][model], rest)
        # `noise` carries the gradient that is left at the trained optimum, at most fit's tolerance.
        assert float(models.residual["fair_newton"][model]) >= float(np.linalg.norm(grad)) - 1e-6
    perturbations = jax.jit(jax.vmap(perturbation, (0, None)))
    noises, fresh = (np.asarray(perturbations(*at)) for at in ((trained, DATA), (models.retrained, rest)))
    for sample in (noises, fresh):
        assert np.std(sample) == pytest.approx(1.0, abs=0.02)
    assert abs(np.corrcoef(noises[:, 0], fresh[:, 0])[0, 1]) < 0.1


def test_planted_rows_are_rare_and_contradict_each_other():
    planted = audit.plant(DATA, 6, key=jax.random.key(2))
    assert len(planted.y) == 12
    np.testing.assert_array_equal(planted.x[:6], planted.x[6:])
    np.testing.assert_array_equal(planted.y, [0] * 6 + [1] * 6)
    norms = np.linalg.norm(np.asarray(DATA.x)[:, :-1], axis=1)
    np.testing.assert_allclose(np.linalg.norm(np.asarray(planted.x)[:, :-1], axis=1), norms.max())


@pytest.mark.slow
def test_a_pair_of_shadow_models_is_what_fit_and_retraining_make():
    """One pair on all real rows: the oracle of ``retrain`` is the fit without planted rows, by every test of it."""
    planted = audit.plant(DATA, 3, key=jax.random.key(2))
    shadow = audit.shadow_models(
        OBJECTIVE,
        DATA,
        planted,
        key=jax.random.key(3),
        sigma=1e-9,
        pairs=1,
        share=1.0,
        methods=("retrain", "no_removal"),
    )
    sign = 2.0 * np.asarray(planted.y) - 1
    params = fit(OBJECTIVE, DATA).params
    np.testing.assert_allclose(shadow.oracle["retrain"][0], sign * (planted.x @ params), atol=1e-6)
    np.testing.assert_allclose(shadow.margins["retrain"][0], np.tile(shadow.oracle["retrain"], (2, 1)), atol=1e-12)
    for member, margins in zip(shadow.member[0], shadow.margins["no_removal"][0], strict=True):
        rows = jax.tree.map(lambda real, extra, kept=member: np.concatenate([real, extra[kept]]), DATA, planted)
        np.testing.assert_allclose(margins, sign * (planted.x @ fit(OBJECTIVE, rows).params), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": 0.0}, "sigma"),
        ({"models": 0}, "`models` must be a whole number of at least 1, got 0"),
        ({"batch_size": 0}, "`batch_size` must be a whole number of at least 1, got 0"),
        ({"methods": ("sharded",)}, "cannot audit method 'sharded' here; known: retrain, fair_newton"),
        ({"objective": Objective(l2=1.0, fairness=1.0, predict=lambda params, x: x @ params)}, "linear model only"),
    ],
)
def test_draw_models_refuses(change, message):
    options = {"objective": OBJECTIVE, "key": jax.random.key(0), "sigma": 1.0, "models": 10, **change}
    with pytest.raises(ValueError, match=message):
        audit.draw_models(options.pop("objective"), DATA, FORGET, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"share": 0.0}, r"`share` must lie in \(0, 1\], got 0"),
        ({"pairs": 0}, "`pairs` must be a whole number of at least 1, got 0"),
        ({"shards": 0}, "`shards`"),
        ({"methods": ("forgetting",)}, "cannot audit method 'forgetting'"),
        ({"planted": jax.tree.map(lambda leaf: leaf[:3], DATA)}, "two halves of equal size, see plant; got 3 rows"),
    ],
)
def test_shadow_models_refuses(change, message):
    planted = audit.plant(DATA, 2, key=jax.random.key(2))
    options = {"planted": planted, "key": jax.random.key(0), "sigma": 1.0, "pairs": 2, **change}
    with pytest.raises(ValueError, match=message):
        audit.shadow_models(OBJECTIVE, DATA, options.pop("planted"), **options)


def test_plant_refuses_what_it_cannot_plant():
    with pytest.raises(ValueError, match="`positions` must be between 1 and the number of rows"):
        audit.plant(DATA, 0, key=jax.random.key(0))
    without_bias = Data(DATA.x[:, :-1], DATA.y, DATA.group, DATA.weight)
    with pytest.raises(ValueError, match="last column is the bias"):
        audit.plant(without_bias, 2, key=jax.random.key(0))
