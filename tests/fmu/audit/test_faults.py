"""Audits of mechanisms whose truth is known: two Gaussians, as far apart as claimed or further.

The mechanisms themselves are audited in the gate's run of `fmu_faults` and, all of them, weekly (`test_fmu_evidence`).
"""

from typing import get_args

import jax
import pytest

from fmu_jax.audit import faults
from fmu_jax.audit.mechanisms import Samples
from scripts.fmu.faults import Mechanism


def gaussians(apart, claim):
    def draw(key, models):
        first, second = jax.random.normal(key, (2, models, 1))
        return Samples(first + apart, second, None, claim)

    return draw


def audited(monkeypatch, name, apart, claim):
    monkeypatch.setattr(faults, "mechanism", lambda fault: gaussians(apart, claim))
    return faults.audit_mechanism(name, models=500, alarms=2, seed=0, key=jax.random.key(1))


@pytest.mark.slow
def test_what_is_further_apart_than_claimed_is_caught(monkeypatch):
    row = audited(monkeypatch, "rounded", 3.0, 0.1)
    assert (row["scheme"], row["honest"], row["claim"]) == ("paper", False, 0.1)
    assert {"gaussian", "histogram"} <= set(row["caught_by"].split(", ")) <= set(faults.AUDITS)
    assert "false_alarms" not in row


def test_an_honest_mechanism_is_left_alone(monkeypatch):
    row = audited(monkeypatch, "smooth", 0.0, 0.5)
    assert (row["scheme"], row["honest"], row["caught_by"], row["false_alarms"]) == ("paper", True, "", 0)
    assert max(row[name] for name in faults.BOUNDS) <= 0.5


def test_mechanisms_have_one_list():
    assert get_args(Mechanism) == tuple(faults.MECHANISMS)
    assert {*faults.PAPERS, *faults.HONEST} < set(faults.MECHANISMS)
    assert {*faults.BOUNDS, "one_run", "relative"} == set(faults.AUDITS)
    with pytest.raises(ValueError, match="unknown mechanism 'lazy'"):
        faults.audit_mechanism("lazy", models=10, alarms=1, seed=0, key=jax.random.key(0))
