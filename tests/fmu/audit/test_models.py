"""Audits of real removals: the certificate holds, doing nothing is caught, retraining ranks best."""

import functools

import jax
import numpy as np
import pytest

from fmu_jax import Objective, audit, datasets, privacy
from fmu_jax.removal import METHODS

OBJECTIVE = Objective(l2=1e-3, fairness=1.0)
DATA = datasets.synthetic(600, 4, seed=0).train
FORGET = np.flatnonzero(np.asarray(DATA.group) == 1)[:40]


@functools.cache
def draws():
    methods = ("fair_newton", "retrain", audit.NO_REMOVAL)
    return audit.draw_models(OBJECTIVE, DATA, FORGET, key=jax.random.key(0), sigma=1.0, models=2000, methods=methods)


@pytest.mark.parametrize("method", ["fair_newton", "retrain"])
def test_the_certificate_holds_in_fact(method):
    found = audit.empirical_epsilon(draws().unlearned[method], draws().retrained, delta=1e-5, key=jax.random.key(1))
    certified = privacy.certified_epsilon(float(draws().residual[method].max()), 1.0, 1e-5)
    # The bound is valid at 95 %; a bound of 0.02 from so few models is what chance alone may give.
    assert float(found.epsilon) <= max(float(certified), 0.02)


def test_doing_nothing_is_caught():
    """The epsilon that fair Newton certifies is far exceeded by parameters returned unchanged."""
    found = audit.empirical_epsilon(
        draws().unlearned[audit.NO_REMOVAL], draws().retrained, delta=1e-5, key=jax.random.key(1)
    )
    claimed = privacy.certified_epsilon(float(draws().residual["fair_newton"].max()), 1.0, 1e-5)
    assert float(found.epsilon) > 2 * float(claimed)
    assert np.asarray(draws().unlearned[audit.NO_REMOVAL] == draws().trained).all()


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
