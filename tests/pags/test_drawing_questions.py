"""Answers over several seeds against means over seeds and images, computed from every image."""

import numpy as np
import pytest
from scipy import stats

from pags_jax import drawing_questions, means

IMAGES, SEEDS = 200, 3
RNG = np.random.default_rng(0)


def drawings(loss, strength, *, judged, gain):
    """Rows of a model of each seed, and what every image of every seed has, ``(seeds, images)``."""
    hits = RNG.uniform(size=(SEEDS, IMAGES)) < np.asarray(judged)[:, None]
    easy = RNG.normal(13, 2, size=IMAGES)[None]  # What the seeds have in common.
    before, after = (easy + shift + RNG.normal(size=(SEEDS, IMAGES)) for shift in (0, np.asarray(gain)[:, None]))
    rows, every = [], np.ones(IMAGES, bool)
    for seed in range(SEEDS):
        row = {"loss": loss, "strength": strength, "seed": seed, "judged": hits[seed].mean()}
        row |= means.mean_and_error("psnr_start", before[seed], every)
        row |= means.mean_and_error("psnr_result", after[seed], every)
        rows += [row | {"task": task} for task, *_ in drawing_questions.TASKS.values()]
    return rows, hits, before, after


BASE = drawings("cross_entropy", 0.0, judged=[0.3, 0.5, 0.4], gain=[0, 0, 0])
MODELS = {
    ("adversarial", 0.5): drawings("adversarial", 0.5, judged=[0.9, 0.7, 0.2], gain=[2.0, 1.5, -1.0]),
    ("adversarial", 1.0): drawings("adversarial", 1.0, judged=[0.6, 0.5, 0.1], gain=[1.0, -1.0, 0.0]),
    ("smoothness", 1.0): drawings("smoothness", 1.0, judged=[0.9, 0.9, 0.9], gain=[1.0, 1.0, 1.0]),
}
TABLE = BASE[0] + [row for rows, *_ in MODELS.values() for row in rows]


@pytest.mark.parametrize("question", [7, 8, 9])
def test_what_is_drawn_is_judged_by_all_seeds(question):
    found = drawing_questions.drawn(TABLE, question, images=IMAGES)
    assert [(row["loss"], row["strength"]) for row in found] == list(MODELS)
    verdicts = []
    for row in found:
        _, hits, before, after = MODELS[row["loss"], row["strength"]]
        values, beside = (hits, BASE[1]) if question == 7 else (after, before)
        assert row["estimate"] == pytest.approx(values.mean(), rel=1e-12)
        assert row["beside"] == pytest.approx(beside.mean(), rel=1e-12)
        # The error over images of each image's mean over seeds is no larger than what the interval says.
        error = values.mean(0).std() / np.sqrt(IMAGES)
        assert 1.9 * error < (row["high"] - row["low"]) / 2 < (0.1 if question == 7 else 3 * error)
        assert row["low"] < row["estimate"] < row["high"]
        if question == 7:  # Between those of the whole numbers of images around it.
            ends = [
                stats.binomtest(int(count), IMAGES).proportion_ci(method="exact")
                for count in (np.floor(hits.mean() * IMAGES), np.ceil(hits.mean() * IMAGES))
            ]
            np.testing.assert_allclose([row["low"], row["high"]], [ends[0].low, ends[1].high], rtol=1e-6)
        verdicts.append(row["verdict"])
    assert verdicts == ["shown", "not shown", "shown"]
    # Whatever the order of rows; and one seed's three times are that seed's.
    backwards = drawing_questions.drawn(TABLE[::-1], question, images=IMAGES)[::-1]
    first = [row for row in TABLE if row["seed"] == 0]
    once = drawing_questions.drawn(first, question, images=IMAGES)
    thrice = drawing_questions.drawn(first * 3, question, images=IMAGES)
    for one, other in zip(found + once, backwards + thrice, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert other[name] == (pytest.approx(value, rel=1e-9) if isinstance(value, float) else value)


def test_models_trained_to_align_are_judged_by_all_seeds():
    numbers = {  # test_accuracy, ensemble and cosine of two seeds
        ("cross_entropy", 0.0): [(0.82, 0.1, 0.0), (0.78, 0.2, 0.0)],
        ("score_alignment", 1.0): [(0.80, 0.5, 0.2), (0.79, 0.3, 0.4)],
        ("score_alignment", 10.0): [(0.79, 0.5, 0.2), (0.70, 0.5, 0.4)],
        ("score_alignment", 30.0): [(0.79, 0.3, 0.2), (0.70, 0.1, 0.4)],
        ("adversarial", 1.0): [(0.7, 0.6, 0.3)] * 2,
    }
    names = ("test_accuracy", "ensemble", "cosine")
    table = [
        {"loss": loss, "strength": strength, "seed": seed} | dict(zip(names, rows[seed], strict=True))
        for seed in range(2)
        for (loss, strength), rows in numbers.items()
    ]
    found = drawing_questions.aligned(table, images=100)
    assert [(row["strength"], row["verdict"]) for row in found] == [
        (1.0, "shown"),
        (10.0, "partly"),
        (30.0, "not shown"),
    ]
    assert [row["estimate"] for row in found] == pytest.approx([0.4, 0.5, 0.2])
    assert [row["beside"] for row in found] == pytest.approx([0.15] * 3)
    assert {row["detail"] for row in found} == {"cosine 0.300"}
    with pytest.raises(ValueError, match="no row is of 'cross_entropy'"):
        drawing_questions.aligned([row for row in table if row["loss"] != "cross_entropy"], images=100)


def test_a_share_in_float32_is_its_number_of_images():
    for count in (90, 100, 10_000):
        exact = stats.binomtest(71, count).proportion_ci(method="exact")
        found = drawing_questions.share_interval(float(np.float32(71 / count)), count)
        np.testing.assert_allclose(found, exact, rtol=1e-6)
    for share in (0.0, 1.0):
        exact = stats.binomtest(int(60 * share), 60).proportion_ci(method="exact")
        np.testing.assert_allclose(drawing_questions.share_interval(share, 60), exact, rtol=1e-6)


def test_nothing_is_said_without_the_number_of_every_seed_or_without_the_undefended_model():
    table = [row | {"judged": None} if row["loss"] == "adversarial" and row["seed"] == 1 else row for row in TABLE]
    assert drawing_questions.drawn(table, 7, images=IMAGES) == []
    assert len(drawing_questions.drawn(table, 8, images=IMAGES)) == 3
    robust = [row for row in TABLE if row["loss"] != "cross_entropy"]
    assert drawing_questions.drawn(robust, 7, images=IMAGES) == []
    assert len(drawing_questions.drawn(robust, 8, images=IMAGES)) == 3
