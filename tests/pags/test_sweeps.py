"""A table of trained models as curves, regimes and correlations."""

import itertools

import jax
import numpy as np
import pytest
from scipy import stats

from pags_jax import questions, sweeps

KEY = jax.random.key(0)


def test_correlations_are_spearmans_and_permuted_within_losses():
    rng = np.random.default_rng(3)
    models = [{"loss": loss, "x": x, "y": y} for loss in "ab" for x, y in rng.normal(size=(5, 2))]
    n, rho, p = sweeps.correlation([*models, {"loss": "b", "x": None, "y": 1.0}], "x", "y", key=KEY)
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
    assert sweeps.correlation(models, "x", "y", key=KEY) == (len(x), None, None)


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


PLACE = {"eps_l2": 1.9, "target": "log_prob", "sigma_pm1": 2.0}


def test_each_model_is_one_point():
    models = sweeps.join(*runs(), **PLACE)
    assert [row["off"] for row in models] == [2.0, 4.0, 6.0]
    assert [row["ratio"] for row in models] == [2.0, 4.0, 6.0]
    assert [row["cosine"] for row in models] == pytest.approx([0.8, 1.2, 1.6])
    assert {(row["eps_l2"], row["sigma_pm1"], row["target"]) for row in models} == {(2.0, 2.0, "log_prob")}


def test_models_that_have_lost_their_accuracy_are_left_out_of_the_accurate():
    models = sweeps.join(*runs(), **PLACE)
    models[2] |= {"test_accuracy": 0.7}
    table = sweeps.correlations(models, measures=["off"], alignments=["cosine"], key=KEY, permutations=9)
    counts = {(row["models"], row["n"]) for row in table}
    assert counts == {("all", 3), ("accurate", 2), ("smoothness", 3)}


def test_the_figure_shows_what_is_best_on_held_out_images():
    def row(loss, strength, seed, validation, test):
        return {
            "loss": loss,
            "strength": strength,
            "seed": seed,
            "validation_accuracy": validation[0],
            "validation_attacked": validation[1:],
            "test_accuracy": test,
        }

    table = [
        row("adversarial", 0.5, 0, [0.9, 0.3], 0.2),
        row("adversarial", 0.5, 1, [0.9, 0.5], 0.2),
        row("adversarial", 1.0, 0, [0.9, 0.1], 0.9),
        row("adversarial", 1.0, 1, [0.9, 0.6], 0.9),
        row("cross_entropy", 0.0, 0, [0.1, 0.0], 0.1),
    ]
    assert sweeps.best(table, ("validation_accuracy", "validation_attacked")) == [table[0], table[1], table[4]]


def test_the_most_robust_accurate_model_has_all_its_seeds_and_none_that_lost_its_accuracy():
    models = (("smoothness", 1.0, 0, 0.80, 0.4), ("smoothness", 1.0, 1, 0.74, 0.3), ("adversarial", 1.0, 0, 0.77, 0.31),
              ("adversarial", 2.0, 0, 0.70, 0.5), ("cross_entropy", 0.0, 0, 0.81, 0.0),
              ("adversarial", 4.0, 0, np.nan, 0.9), ("adversarial", 5.0, 0, None, 0.9))  # fmt: skip
    table = [
        {"loss": loss, "strength": s, "seed": seed, "validation_accuracy": plain, "validation_attacked": [1.0, hit]}
        for loss, s, seed, plain, hit in models
    ]
    assert sweeps.most_robust(table, 1) == table[:2]
    assert sweeps.most_robust(table, 1, accurate=0.02) == [table[4]]
    assert sweeps.most_robust(table, 1, accurate=0.2) == [table[3]]
    assert sweeps.most_robust(table[5:], 1) == []


def test_curves_leave_gaps_for_missing_models():
    table = [
        {"loss": "smoothness", "strength": strength, "seed": seed, "on": 10 * strength + seed}
        for strength, seed in ((2.0, 0), (1.0, 0), (1.0, 1))
    ]
    table.append({"loss": "smoothness", "strength": 2.0, "seed": 1, "on": None})
    strengths, (on,) = sweeps.curves(table, "smoothness", "on")
    np.testing.assert_array_equal(strengths, [1, 2])
    np.testing.assert_array_equal(on, [[10, 11], [20, np.nan]])
    table.append({"loss": "cross_entropy", "strength": 0.0, "seed": 1, "on": 7.0})  # Undefended: strength 0.
    strengths, (on,) = sweeps.curves(table, "smoothness", "on")
    np.testing.assert_array_equal(strengths, [0, 1, 2])
    np.testing.assert_array_equal(on, [[np.nan, 7], [10, 11], [20, np.nan]])


def test_regimes_by_energy_are_read_where_losses_were_measured_at_noise_levels_of_their_own():
    """Of smoothing models alone there are levels below the others'; the share is the same at all."""
    shares = {"smoothness": (0.6, 0.4, 0.3), "randomized_smoothing": (0.9, 0.4, 0.4)}
    accuracies = {"smoothness": (0.9, 0.9, 0.6), "randomized_smoothing": (0.9, 0.9, 0.9)}
    table = [
        {"loss": loss, "strength": 10.0**k, "seed": 0, "test_accuracy": accuracies[loss][k], "off_share": share}
        | {"target": "logit", "sigma_pm1": level}
        for loss, found in shares.items()
        for k, share in enumerate(found)
        for level in ((0.5, 1.0) if loss == "smoothness" else (0.2, 0.5, 1.0))
    ]
    table += [table[0] | {"loss": "cross_entropy", "strength": 0.0, "off_share": 0.7, "sigma_pm1": 0.5}]
    found = {loss: sweeps.share_regimes_of(table, loss, target="logit") for loss in shares}
    assert found["smoothness"].strengths == (0, 1, 10, 100)
    assert found["smoothness"].labels == ("weak", "weak", "aligned", "excessive")
    assert found["randomized_smoothing"].labels == ("weak", "weak", "aligned", "aligned")


def test_values_are_means_over_seeds_of_images_that_every_model_has():
    draw = np.random.default_rng(0)
    models = [("smoothness", 1.0, 0), ("smoothness", 1.0, 1), ("cross_entropy", 0.0, 0)]
    arrays = {f"{loss},{seed}": {"cosine": draw.normal(size=(2, 5))} for loss, _, seed in models}
    arrays["smoothness,1"]["cosine"][1, 3] = np.nan
    table = [
        {"unit": f"{loss},{seed}", "loss": loss, "strength": strength, "sigma_pm1": sigma}
        for loss, strength, seed in models
        for sigma in (0.5, 1.0)
    ]
    found = sweeps.values_of(table, arrays.__getitem__, "cosine", sigma_pm1=1.0)
    both = [arrays[f"smoothness,{seed}"]["cosine"][1] for seed in (0, 1)]
    np.testing.assert_allclose(found["smoothness", 1.0], np.mean(both, axis=0))
    expected = np.where(np.arange(5) == 3, np.nan, arrays["cross_entropy,0"]["cosine"][1])
    np.testing.assert_array_equal(found["cross_entropy", 0.0], expected)
    assert sorted(found) == [("cross_entropy", 0.0), ("smoothness", 1.0)]


@pytest.mark.parametrize(("accuracy", "place", "said"), [(0.1, 1.0, "yes, at 1 "), (0.5, 10.0, "yes, at 10 ")])
def test_a_model_that_guesses_makes_no_peak(accuracy, place, said):
    """The gradient of a collapsed model is noise; in a narrow LeNet's sweep it looked most like the score."""
    values = {0.0: (0.8, 0.70), 1.0: (0.7, 0.72), 10.0: (accuracy, 0.88), 100.0: (0.3, 0.71)}
    table = [
        {"loss": "adversarial" if strength else "cross_entropy", "strength": strength, "seed": 0, "classes": 10}
        | {"test_accuracy": right, "similarity": alike, "cosine": alike}
        for strength, (right, alike) in values.items()
    ]
    assert questions.peak_of(table, "adversarial", "similarity")["at strength"] == place
    robust = [row | {"on": 0.2, "off": 0.1, "eps_l2": 1.0} for row in table]
    line = questions.claims_of("adversarial", robust, table, questions.Place(eps=1.0))
    assert line["1 - LPIPS peaks inside"].startswith(said)
    assert line["off falls below on while accurate"] == "no, the undefended model has it already"
    robust = [row | {"off": 0.3} if row["strength"] == 0 else row for row in robust]
    line = questions.claims_of("adversarial", robust, table, questions.Place(eps=1.0, tolerance=0.15))
    assert line["off falls below on while accurate"] == "yes, from strength 1 to 1"
