"""Experiments on fair unlearning that `reproduce` leaves out, at their smallest, and what is refused.

`test_reproduced` has the others, `test_registry` what all share.
"""

import jax
import pytest

from fmu_jax import removal_tables
from scripts import registry
from scripts.fmu import removal
from scripts.harness import store

NETWORKS = ("fmu_embeddings", "fmu_deep_audit", "fmu_noisy_finetuning")


def call(name, *words):
    # optax's L-BFGS and Adam mix dtypes, so strict promotion cannot be asked of what trains networks by them.
    with jax.numpy_dtype_promotion("standard" if name in NETWORKS else "strict"):
        return registry.experiment(name).run(list(words))


@pytest.mark.parametrize(
    ("datasets", "words"),
    [  # Every method is compiled once a week; ordinary tests audit networks (`tests/fmu/audit/test_networks.py`).
        pytest.param({"adult"}, ["--datasets", "adult", "--methods", "finetune", "fake"], marks=pytest.mark.slow),
        pytest.param({"adult", "fashion_mnist"}, [], marks=pytest.mark.weekly),
    ],
    ids=["quick", "all"],
)
def test_deep_audit_catches_a_missing_removal(datasets, words, tmp_path):
    sizes = ["--pairs", "8", "--rows", "200", "--train-steps", "60", "--out", str(tmp_path / "run")]
    assert call("fmu_deep_audit", *words, *sizes) == 0
    table = store.read_rows(tmp_path / "run")
    assert {row["dataset"] for row in table} == datasets
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


def test_a_share_of_a_subset(monkeypatch):
    """How many rows are forgotten, by no method."""
    monkeypatch.setattr(removal_tables, "EVERY", ("no_removal",))
    config = removal.Config(subsets=("minority",), fractions=(0.9,), fractions_of="subset")
    (row,) = removal.rows_of(config, dataset="compas", penalty="equalized_odds", seed=0)
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
