"""What the rows of the gate's quick run of all experiments must show.

`.ci/run` names the run's folder by ``REPRODUCED``; without it these tests are skipped. No experiment runs a second time
to be looked at.
"""

import os
from pathlib import Path

import pytest

from scripts import registry, reproduce
from scripts.harness import store

FOLDER = Path(os.environ.get("REPRODUCED", "nowhere"))
pytestmark = pytest.mark.skipif(
    "REPRODUCED" not in os.environ, reason="REPRODUCED names no folder of `scripts.reproduce`"
)
EVERY = reproduce.runs(reproduce.Config(preset="quick", out=FOLDER))


def rows(name, **wanted):
    """The rows of an experiment's run that have these values."""
    return [row for row in store.read_rows(FOLDER / name) if all(row[key] == value for key, value in wanted.items())]


@pytest.mark.parametrize("name", [name for name in EVERY if name.startswith("fmu_")])
def test_experiments_on_unlearning_are_in_float64_and_drawn(name):
    assert (FOLDER / "report.html").stat().st_size > 0
    table = rows(name)
    assert table
    assert all(row["env.x64"] for row in table)
    assert list((FOLDER / name).glob("*.png"))


@pytest.mark.parametrize("dataset", ["compas", "adult"])
@pytest.mark.parametrize("subset", ["random", "minority"])
def test_the_fair_step_ends_nearest_to_retraining(dataset, subset):
    """The paper's point, wherever rows come from."""
    table = {row["method"]: row for row in rows("fmu_removal", dataset=dataset, subset=subset, fraction=0.05)}
    distance = {method: row["distance"] for method, row in table.items()}
    assert distance["retrain"] == 0
    assert distance["sharded"] is None
    others = [distance[name] for name in ("no_removal", "newton", "influence", "projective", "descent")]
    assert distance["fair_newton"] < min(others) / 3
    certified = table["fair_newton"]
    assert distance["fair_newton"] <= certified["local_distance_bound"] <= certified["distance_bound"]
    assert certified["odds_low"] <= certified["odds_high"]


def test_removals_on_a_mesh_give_the_same_answers(tmp_path):
    words = ["--datasets", "compas", "--repeats", "1", "--fractions", "0.05", "--subsets", "random", "minority"]
    words += ["--mesh", "data=4,sweep=2", "--out", str(tmp_path / "eight")]
    assert registry.experiment("fmu_removal").run(words) == 0
    alone = [
        row for row in rows("fmu_removal", dataset="compas", fraction=0.05) if row["subset"] in ("random", "minority")
    ]
    for row, other in zip(alone, store.read_rows(tmp_path / "eight"), strict=True):
        assert row.keys() == other.keys()
        assert row["unit"] == other["unit"]
        if row["method"] != "sharded":  # Its shards are dealt among all rows, those that fill up devices included.
            for column in ("accuracy", "equalized_odds_mean", "distance", "row_bound"):
                wanted = row.get(column)
                assert other.get(column) == (wanted and pytest.approx(wanted, rel=1e-6, abs=1e-10)), (row, column)


def test_on_intersections_the_fair_step_is_nearest_inside_its_certificate():
    """Four groups, each penalty with each method."""
    table = rows("fmu_groups")
    assert {(row["dataset"], row["groups"]) for row in table} == {("compas", 4)}
    assert [row["penalised"] for row in table[::4]] == ["nothing", "race", "gender", "race x gender"]
    for penalised in ("race", "gender", "race x gender"):
        found = {row["method"]: row for row in table if row["penalised"] == penalised}
        fair = found["fair_newton"]
        assert fair["distance"] < min(found[name]["distance"] for name in ("newton", "no_removal")) / 3
        assert fair["residual_norm"] <= fair["row_bound"]
        gap = found["retrain"]["equalized_odds_mean"]
        assert fair["odds_low"] - 1e-12 <= gap <= fair["odds_high"] + 1e-12
        assert fair["equalized_odds_mean_gap"] <= fair["equalized_odds_mean"] + 1e-12


def test_no_test_of_releases_beats_the_certified_curve_and_half_the_noise_does():
    """Of two settings here; the weekly run has all, the published one 10^6 series."""
    table = rows("fmu_release_curves")
    assert len(table) == 2 * 3 * 41
    assert not any(row["beaten"] for row in table if row["variant"] != "half noise")
    for setting in {row["setting"] for row in table}:
        admitted, half = (
            [row for row in table if (row["setting"], row["variant"]) == (setting, variant)]
            for variant in ("admitted", "half noise")
        )
        assert max(abs(row["misses"] - row["certified"]) for row in admitted) < 0.03
        assert sum(row["beaten"] for row in half) > 0.8 * len(half)
