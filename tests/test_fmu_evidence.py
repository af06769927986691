"""Slices of what benchmarks show: certified distances against truth, and audits against planted faults.

They are weekly: every run has fewer problems of the same distances (`tests/fmu/test_distances.py`), the parts of the
audits (`tests/fmu/audit`), and two settings of the curve (`tests/test_reproduced.py`).
"""

import jax
import numpy as np
import pytest

from benchmarks import fmu_distances
from scripts import registry
from scripts.fmu import faults
from scripts.harness import store

pytestmark = pytest.mark.weekly


@pytest.fixture(autouse=True)
def promotion():
    """As users run benchmarks and scripts."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.parametrize(
    ("form", "dtype"), [(fmu_distances.FORMS[8], np.float32), (fmu_distances.FORMS[7], np.float64)]
)
def test_no_certified_distance_is_below_the_true_one(form, dtype):
    """Of a model, a stream and a head, in three norms, on problems that the committed run has not seen."""
    rows = fmu_distances.measure_form(form, dtype, 1, 48, 2)
    assert {row["bound"] for row in rows} >= {"convex", "local", "shared", "any", "stream", "stream_any"}
    for row in rows:
        assert row["below_truth"] == row["nan"] == 0, row
        assert row["undecided"] <= 1
        assert row["finite"] >= row["problems"] / 4


def test_every_fault_is_caught_and_no_honest_mechanism_is():
    """What the published table says of each mechanism, with fewer models."""
    config = faults.Config(models=4000, alarms=1, seed=3)
    rows = [row for unit in config.units() for row in faults.rows_of(config, **unit)]
    caught = {unit["mechanism"]: row["caught_by"] for unit, row in zip(config.units(), rows, strict=True)}
    assert {name for name, by in caught.items() if not by} == {"honest", "at_admitted", "smooth"}
    assert not any(row.get("false_alarms", 0) for row in rows)
    assert "grid" in caught["rounded"]
    assert {"histogram", "kernel"} & set(caught["stream"].split(", "))
    for name in ("no_removal", "wrong_sign"):
        assert {"relative", "one_run"} <= set(caught[name].split(", "))


def test_no_test_beats_the_certified_curve_and_half_the_noise_does(tmp_path):
    """All settings at 10,000 series; the published run has 10^6."""
    assert registry.experiment("fmu_release_curves").run(["--draws", "10000", "--out", str(tmp_path / "run")]) == 0
    rows = store.read_rows(tmp_path / "run")
    assert len(rows) == 12 * 41
    assert not any(row["beaten"] for row in rows if row["variant"] != "half noise")
    for setting in {row["setting"] for row in rows}:
        at = {
            v: [row for row in rows if row["setting"] == setting and row["variant"] == v]
            for v in ("admitted", "half noise")
        }
        assert max(abs(row["misses"] - row["certified"]) for row in at["admitted"]) < 0.03
        assert np.mean([row["beaten"] for row in at["half noise"]]) > 0.8
