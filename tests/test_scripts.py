"""Each experiment on fair unlearning at its smallest, and what its rows must show; `test_registry` has the rest."""

import functools

import jax
import pytest

from scripts import registry
from scripts.harness import store

NETWORKS = ("fmu_embeddings", "fmu_deep_audit", "fmu_noisy_finetuning")
COMPAS = ("--datasets", "compas", "--repeats", "1")
#: Of experiments whose rows are checked here; `.ci/run` runs all others in `scripts.reproduce --preset quick`.
SMALL = {
    "fmu_removal": [*COMPAS, "--fractions", "0.05", "--subsets", "random", "minority"],
    "fmu_groups": [*COMPAS, "--fractions", "0.05", "--penalties", "equalized_odds"],
}


def call(name, *words):
    # optax's L-BFGS and Adam mix dtypes, so strict promotion cannot be asked of what trains networks by them.
    with jax.numpy_dtype_promotion("standard" if name in NETWORKS else "strict"):
        return registry.experiment(name).run(list(words))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The folder of an experiment's small run, made once."""

    @functools.cache
    def folder(name):
        out = tmp_path_factory.mktemp(name) / "run"
        assert call(name, *SMALL[name], "--out", str(out)) == 0
        return out

    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_small_run(name, small):
    table = store.read_rows(small(name))
    assert {row["dataset"] for row in table} == {"compas"}
    assert all(row["env.x64"] for row in table)
    assert list(small(name).glob("*.png"))
    {"fmu_removal": check_removal, "fmu_groups": check_groups}[name](table)


def check_removal(table):
    """The paper's point, on this small run: the fair step ends nearest to retraining, wherever rows come from."""
    for subset in ("random", "minority"):
        distance = {row["method"]: row["distance"] for row in table if row["subset"] == subset}
        assert distance["retrain"] == 0
        assert distance["sharded"] is None
        others = [distance[name] for name in ("no_removal", "newton", "influence", "projective", "descent")]
        assert distance["fair_newton"] < min(others) / 3
        (certified,) = (row for row in table if row["subset"] == subset and row["method"] == "fair_newton")
        assert distance["fair_newton"] <= certified["local_distance_bound"] <= certified["distance_bound"]
        assert certified["odds_low"] <= certified["odds_high"]


@pytest.mark.slow
def test_rows_on_a_mesh_give_the_same_answers(small, tmp_path):
    words = [*SMALL["fmu_removal"], "--mesh", "data=4,sweep=2", "--out", str(tmp_path / "eight")]
    assert call("fmu_removal", *words) == 0
    alone, spread = store.read_rows(small("fmu_removal")), store.read_rows(tmp_path / "eight")
    for row, other in zip(alone, spread, strict=True):
        assert row.keys() == other.keys()
        assert row["unit"] == other["unit"]
        if row["method"] != "sharded":  # Its shards are dealt among all rows, those that fill up devices included.
            for column in ("accuracy", "equalized_odds_mean", "distance", "row_bound"):
                wanted = row.get(column)
                assert other.get(column) == (wanted and pytest.approx(wanted, rel=1e-6, abs=1e-10)), (row, column)


def check_groups(table):
    """Four groups, each penalty with each method; the fair step nearest to retraining, inside its certificate."""
    assert {row["groups"] for row in table} == {4}
    assert [row["penalised"] for row in table[::4]] == ["nothing", "race", "gender", "race x gender"]
    for penalised in ("race", "gender", "race x gender"):
        rows = {row["method"]: row for row in table if row["penalised"] == penalised}
        fair = rows["fair_newton"]
        assert fair["distance"] < min(rows[name]["distance"] for name in ("newton", "no_removal")) / 3
        assert fair["residual_norm"] <= fair["row_bound"]
        gap = rows["retrain"]["equalized_odds_mean"]
        assert fair["odds_low"] - 1e-12 <= gap <= fair["odds_high"] + 1e-12
        assert fair["equalized_odds_mean_gap"] <= fair["equalized_odds_mean"] + 1e-12


@pytest.mark.slow
def test_deep_audit_catches_a_missing_removal(tmp_path):
    words = ["--pairs", "8", "--rows", "200", "--train-steps", "60", "--out", str(tmp_path / "run")]
    assert call("fmu_deep_audit", *words) == 0
    table = store.read_rows(tmp_path / "run")
    assert {row["dataset"] for row in table} == {"adult", "fashion_mnist"}
    for row in table:
        if row["method"] == "retrain":
            assert row["klom"] == pytest.approx(0, abs=1e-6)
            assert row["margin_shift"] == pytest.approx(0, abs=1e-5)
        if row["method"] == "no_removal":
            assert row["margin_shift"] > 0
    assert list((tmp_path / "run").glob("*.png"))


@pytest.mark.slow
def test_noisy_finetuning_keeps_its_guarantee_and_repairs(tmp_path):
    words = ["--preset", "quick", "--clips", "0.1", "--checkpoints", "20", "--out", str(tmp_path / "run")]
    assert call("fmu_noisy_finetuning", *words) == 0
    table = store.read_rows(tmp_path / "run")
    certified = [row for row in table if str(row["method"]).startswith("noisy_")]
    assert {(row["method"], row["start"]) for row in certified} == {
        (f"noisy_{route}", start) for route in ("output", "gradient", "model", "blocks") for start in ("init", "public")
    }
    assert all(0.99 < row["certified_mu"] <= row["mu"] == 1 for row in certified)
    (head,) = (row for row in table if row["method"] == "head")
    assert head["distance"] < 0.005
    assert {row["repair_steps"] for row in certified} == {0, 20}
    assert list((tmp_path / "run").glob("frontier.png"))


@pytest.mark.slow
def test_heads_of_ten_classes_on_what_a_network_of_public_images_has_learnt(tmp_path):
    words = ["--preset", "quick", "--features", "standard", "--out", str(tmp_path / "run")]
    assert call("fmu_image_heads", *words) == 0
    table = store.read_rows(tmp_path / "run")
    for count in (1, 100):
        rows = {row["method"]: row for row in table if row["rows_removed"] == count}
        assert rows["retrain"]["distance"] == 0
        assert rows["fair_newton"]["distance"] < min(rows[name]["distance"] for name in ("newton", "no_removal")) / 10
        assert rows["fair_newton"]["distance"] <= rows["fair_newton"]["local_distance_bound"]
        assert rows["fair_newton"]["total_epsilon"] == rows["fair_newton"]["head_epsilon"] < 2
    assert {row["train_rows"] for row in table} == {5600}
    assert list((tmp_path / "run").glob("*.png"))


def test_counts_beyond_the_rows_are_refused(tmp_path, capsys):
    words = ["--datasets", "compas", "--repeats", "1", "--features", "raw", "--out", str(tmp_path / "run")]
    assert call("fmu_embeddings", *words, "--counts", "4000") == 1
    assert "--counts: none of 4000 rows can be removed from 2955" in capsys.readouterr().err


def test_a_dry_run_reads_the_mesh(tmp_path, capsys):
    assert call("fmu_groups", "--mesh", "data=0", "--dry-run", "--out", str(tmp_path / "run")) == 1
    assert "--mesh: expected axes" in capsys.readouterr().err


@pytest.mark.slow
def test_a_share_of_a_subset(tmp_path):
    words = ["--datasets", "compas", "--repeats", "1", "--subsets", "minority", "--out", str(tmp_path / "run")]
    assert call("fmu_removal", *words, "--fractions", "0.9", "--fractions-of", "subset") == 0
    (row,) = (row for row in store.read_rows(tmp_path / "run") if row["method"] == "fair_newton")
    minority = round(row["rows_removed"] / 0.9)
    assert 0.3 * row["train_rows"] < minority < 0.5 * row["train_rows"]


def test_hsls_without_a_file_says_how_to_name_it(tmp_path, capsys):
    assert call("fmu_removal", "--datasets", "hsls", "--out", str(tmp_path / "run")) == 1
    assert "--hsls" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_missing_file(tmp_path, capsys):
    words = ["--datasets", "hsls", "--hsls", str(tmp_path / "nothing.csv"), "--out", str(tmp_path / "run")]
    assert call("fmu_removal", *words) == 1
    assert "nothing.csv" in capsys.readouterr().err


def test_a_shown_value_that_is_not_measured(tmp_path, capsys):
    assert call("fmu_certificates", "--shown-sigma", "3.0", "--out", str(tmp_path / "run")) == 1
    assert "--shown-sigma" in capsys.readouterr().err
