"""Which measure goes with alignment: known correlations, joined runs, and the committed rows."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from scripts.pags import explain, tables

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "reproduce"


def test_correlations_are_spearmans_and_permuted_within_losses():
    rng = np.random.default_rng(3)
    models = [{"loss": loss, "x": x, "y": y} for loss in "ab" for x, y in rng.normal(size=(5, 2))]
    n, rho, p = explain.correlation([*models, {"loss": "b", "x": None, "y": 1.0}], "x", "y")
    columns = [[row[name] for row in models] for name in "xy"]
    assert (n, rho) == (10, pytest.approx(stats.spearmanr(*columns).statistic, abs=1e-6))
    ranks = [stats.rankdata(column) for column in columns]
    orders = [list(order) for order in itertools.permutations(range(5))]
    found = [
        np.corrcoef(ranks[0], np.concatenate([ranks[1][:5][one], ranks[1][5:][other]]))[0, 1]
        for one in orders
        for other in orders
    ]
    expected = np.mean(np.abs(found) >= abs(rho) - 1e-6)
    assert p == pytest.approx(expected, abs=5 * np.sqrt(expected * (1 - expected) / 9999))


@pytest.mark.parametrize(("x", "y"), [([], []), ([1, 2], [1, 2]), ([1, 2, 3], [5, 5, 5])])
def test_what_has_no_correlation(x, y):
    models = [{"loss": "a", "x": one, "y": other} for one, other in zip(x, y, strict=True)]
    assert explain.correlation(models, "x", "y") == (len(x), None, None)


def runs(shares=(0.6, 0.4, 0.2), **changed):
    robust = [
        {"loss": "smoothness", "strength": s, "seed": 0, "eps_l2": eps, "on": 0.5 * eps, "off": eps * s}
        for s in (1.0, 2.0, 3.0)
        for eps in (0.5, 2.0)
    ]
    aligned = [
        {"loss": "smoothness", "strength": s, "seed": 0, "target": target, "sigma_pm1": sigma, "test_accuracy": 0.8,
         "cosine": (1 - share) * sigma, "similarity": 1 - share, "off_share": share}
        for s, share in zip((1.0, 2.0, 3.0), shares, strict=True)
        for target, sigma in (("log_prob", 1.0), ("log_prob", 2.0), ("logit", 2.0))
    ]  # fmt: skip
    return robust, [row | changed for row in aligned]


PLACE = {"eps": 1.9, "target": "log_prob", "sigma_pm1": 2.0}


def test_each_model_is_one_point():
    models = explain.joined(*runs(), **PLACE)
    assert [row["off"] for row in models] == [2.0, 4.0, 6.0]
    assert [row["ratio"] for row in models] == [2.0, 4.0, 6.0]
    assert [row["cosine"] for row in models] == pytest.approx([0.8, 1.2, 1.6])
    assert {(row["eps_l2"], row["sigma_pm1"], row["target"]) for row in models} == {(2.0, 2.0, "log_prob")}


def test_models_of_different_trainings_are_not_joined():
    robust, aligned = runs()
    robust = [row | {"config.trained_sha256": "a"} for row in robust]
    with pytest.raises(ValueError, match="--robustness and --alignment are of different trained models"):
        explain.joined(robust, [row | {"config.trained_sha256": "b"} for row in aligned], **PLACE)
    assert len(explain.joined(robust, aligned, **PLACE)) == 3


def test_the_sentence_names_the_best_and_the_papers():
    robust, aligned = runs(shares=(0.6, 0.2, 0.4))
    table = explain.correlations(explain.joined(robust, aligned, **PLACE))
    said = explain.sentence(table)
    assert "cosine: gradient's off-manifold share predicts it best (rank correlation -1.00, p = 0.3" in said
    assert "3 models); off-manifold deviation has +0.50 (p = 1), given that on the manifold +0.50 (p = 1)" in said
    lines = explain.lines(table)
    assert [(line["models"], line["alignment"], line["n"]) for line in lines] == [
        (group + given, alignment, 3)
        for group, several in (("all losses", True), ("accurate, all losses", True), ("smoothness", False))
        for alignment in ("cosine", "1 - LPIPS")
        for given in (("", ", given on") if several else ("",))
    ]
    assert lines[0]["off-manifold deviation"] == "+0.50 (1)"
    assert lines[0]["on-manifold deviation"] == lines[0]["test accuracy"] == "none"


def test_models_that_have_lost_their_accuracy_are_left_out_of_the_accurate():
    models = explain.joined(*runs(), **PLACE)
    models[2] |= {"test_accuracy": 0.7}
    counts = {(row["models"], row["n"]) for row in explain.correlations(models)}
    assert counts == {("all", 3), ("accurate", 2), ("smoothness", 3)}


def test_models_without_values_are_left_out():
    robust, aligned = runs(cosine=None)
    aligned[1] |= {"similarity": float("nan")}
    table = explain.correlations(explain.joined(robust, aligned, **PLACE))
    assert {(row["alignment"], row["n"], row["rho"]) for row in table} == {("cosine", 0, None), ("similarity", 2, None)}
    assert explain.sentence(table) == "cosine: too few models to say; 1 - LPIPS: too few models to say."


def test_the_committed_models_are_explained_as_the_readme_says():
    robust, aligned = (
        tables.read(RESULTS / f"pags_{name}.csv.gz", f"--{name}", f"pags_{name}")
        for name in ("robustness", "alignment")
    )
    models = explain.joined(robust, aligned, eps=2.637, target="log_prob", sigma_pm1=2.0)
    assert len(models) == 25
    table = {
        (row["alignment"], row["measure"]): round(row["rho"], 2)
        for row in explain.correlations(models)
        if row["models"] == explain.ALL
    }
    assert table == {
        ("cosine", "off"): -0.31, ("cosine", "on"): -0.48, ("cosine", "ratio"): -0.16, ("cosine", "off_share"): -0.76,
        ("cosine", "test_accuracy"): -0.34, ("similarity", "off"): -0.63, ("similarity", "on"): -0.64,
        ("similarity", "ratio"): -0.34, ("similarity", "off_share"): -0.86, ("similarity", "test_accuracy"): -0.50,
    }  # fmt: skip
