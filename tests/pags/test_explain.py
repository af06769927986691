"""Which measure goes with alignment: known correlations, joined runs, and the committed rows."""

from pathlib import Path

import pytest

from pags_jax import explanation, sweeps
from scripts.pags import sweeps as runs_of
from tests.pags.test_sweeps import runs

PLACE = runs_of.PlaceConfig(eps=1.9, target="log_prob", sigma_pm1=2.0)
RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "reproduce"


def test_models_of_different_trainings_are_not_joined():
    robust, aligned = runs()
    robust = [row | {"config.trained_sha256": "a"} for row in robust]
    with pytest.raises(ValueError, match="--robustness and --alignment are of different trained models"):
        PLACE.joined(robust, [row | {"config.trained_sha256": "b"} for row in aligned])
    assert len(PLACE.joined(robust, aligned)) == 3


def test_the_sentence_names_the_best_and_the_papers():
    robust, aligned = runs(shares=(0.6, 0.2, 0.4))
    table = explanation.correlations(PLACE.joined(robust, aligned))
    said = explanation.sentence(table)
    assert "cosine: gradient's off-manifold share predicts it best (rank correlation -1.00, p = 0.3" in said
    assert "off-manifold deviation has +0.50 (p = 1), and +0.50 (p = 1) given the on-manifold deviation" in said
    lines = explanation.lines(table)
    assert [(line["models"], line["alignment"], line["n"]) for line in lines] == [
        (group + given, alignment, 3)
        for group, several in (("all losses", True), ("accurate, all losses", True), ("smoothness", False))
        for alignment in ("cosine", "1 - LPIPS")
        for given in (("", ", given on") if several else ("",))
    ]
    assert lines[0]["off-manifold deviation"] == "+0.50 (1)"
    assert lines[0]["on-manifold deviation"] == lines[0]["test accuracy"] == "none"


def test_models_without_values_are_left_out():
    robust, aligned = runs(cosine=None)
    aligned[1] |= {"similarity": float("nan")}
    table = explanation.correlations(PLACE.joined(robust, aligned))
    assert {(row["alignment"], row["n"], row["rho"]) for row in table} == {("cosine", 0, None), ("similarity", 2, None)}
    assert explanation.sentence(table) == "cosine: too few models to tell; 1 - LPIPS: too few models to tell."


def test_the_committed_models_are_explained_as_the_readme_says(monkeypatch):
    monkeypatch.setattr(explanation, "SHUFFLES", 9)  # They decide p, and no correlation.
    robust, aligned = (runs_of.read(RESULTS / f"pags_{name}.csv.gz", name) for name in ("robustness", "alignment"))
    models = runs_of.PlaceConfig(target="log_prob", sigma_pm1=2.0).joined(robust, aligned)
    assert len(models) == 25
    table = {
        (row["alignment"], row["measure"]): round(row["rho"], 2)
        for row in explanation.correlations(models)
        if row["models"] == sweeps.ALL
    }
    assert table == {
        ("cosine", "off"): -0.31, ("cosine", "on"): -0.48, ("cosine", "ratio"): -0.16, ("cosine", "off_share"): -0.76,
        ("cosine", "test_accuracy"): -0.34, ("similarity", "off"): -0.63, ("similarity", "on"): -0.64,
        ("similarity", "ratio"): -0.34, ("similarity", "off_share"): -0.86, ("similarity", "test_accuracy"): -0.50,
    }  # fmt: skip
