"""Which measure goes with alignment: known correlations, joined runs, and the committed rows."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from scripts import pags_explain, pags_tables

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "reproduce"


def test_correlations_are_spearmans_and_p_values_are_permutations():
    rng = np.random.default_rng(3)
    for n in (5, 30):
        x, y = rng.normal(size=n), rng.normal(size=n)
        y[0] = y[1]
        rho, p = pags_explain.correlation(x, y)
        expected = stats.spearmanr(x, y)
        assert rho == pytest.approx(expected.statistic)
        if n == 5:
            found = [stats.spearmanr(x, order).statistic for order in itertools.permutations(y)]
            assert p == pytest.approx(np.mean(np.abs(found) >= abs(rho) - 1e-9))
        else:
            assert p == pytest.approx(expected.pvalue, abs=0.02)


def test_random_orders_count_the_one_that_is_there():
    x = np.arange(20)
    assert pags_explain.correlation(x, -x) == (pytest.approx(-1), 1 / 10_000)


@pytest.mark.parametrize(("x", "y"), [([], []), ([1, 2], [1, 2]), ([1, 2, 3], [5, 5, 5])])
def test_what_has_no_correlation(x, y):
    assert pags_explain.correlation(x, y) is None


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
    models = pags_explain.joined(*runs(), **PLACE)
    assert [row["off"] for row in models] == [2.0, 4.0, 6.0]
    assert [row["ratio"] for row in models] == [2.0, 4.0, 6.0]
    assert [row["cosine"] for row in models] == pytest.approx([0.8, 1.2, 1.6])
    assert {(row["eps_l2"], row["sigma_pm1"], row["target"]) for row in models} == {(2.0, 2.0, "log_prob")}


def test_models_of_different_trainings_are_not_joined():
    robust, aligned = runs()
    robust = [row | {"config.trained_sha256": "a"} for row in robust]
    with pytest.raises(ValueError, match="--robustness and --alignment are of different trained models"):
        pags_explain.joined(robust, [row | {"config.trained_sha256": "b"} for row in aligned], **PLACE)
    assert len(pags_explain.joined(robust, aligned, **PLACE)) == 3


def test_the_sentence_names_the_best_and_the_papers():
    robust, aligned = runs(shares=(0.6, 0.2, 0.4))
    table = pags_explain.correlations(pags_explain.joined(robust, aligned, **PLACE))
    said = pags_explain.sentence(table)
    assert "cosine: gradient's off-manifold share predicts it best (rank correlation -1.00, p = 0.33, 3 models)" in said
    assert "off-manifold deviation has +0.50" in said
    lines = pags_explain.lines(table)
    assert [(line["models"], line["alignment"], line["n"]) for line in lines] == [
        ("all losses", "cosine", 3), ("all losses", "1 - LPIPS", 3), ("smoothness", "cosine", 3),
        ("smoothness", "1 - LPIPS", 3),
    ]  # fmt: skip
    assert lines[0]["off-manifold deviation"] == "+0.50 (1)"
    assert lines[0]["on-manifold deviation"] == lines[0]["test accuracy"] == "none"


def test_models_without_values_are_left_out():
    robust, aligned = runs(cosine=None)
    aligned[1] |= {"similarity": float("nan")}
    table = pags_explain.correlations(pags_explain.joined(robust, aligned, **PLACE))
    assert {(row["alignment"], row["n"], row["rho"]) for row in table} == {("cosine", 0, None), ("similarity", 2, None)}
    assert pags_explain.sentence(table) == "cosine: too few models to say; 1 - LPIPS: too few models to say."


def test_the_committed_models_are_explained_as_the_readme_says():
    robust, aligned = (
        pags_tables.read(RESULTS / f"pags_{name}.csv.gz", f"--{name}", f"pags_{name}")
        for name in ("robustness", "alignment")
    )
    models = pags_explain.joined(robust, aligned, eps=2.637, target="log_prob", sigma_pm1=2.0)
    assert len(models) == 25
    table = {
        (row["alignment"], row["measure"]): round(row["rho"], 2)
        for row in pags_explain.correlations(models)
        if row["models"] == pags_explain.ALL
    }
    assert table == {
        ("cosine", "off"): -0.31, ("cosine", "on"): -0.48, ("cosine", "ratio"): -0.16, ("cosine", "off_share"): -0.76,
        ("cosine", "test_accuracy"): -0.34, ("similarity", "off"): -0.63, ("similarity", "on"): -0.64,
        ("similarity", "ratio"): -0.34, ("similarity", "off_share"): -0.86, ("similarity", "test_accuracy"): -0.50,
    }  # fmt: skip
