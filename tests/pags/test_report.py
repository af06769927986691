"""The gradients part of the report: each claim is said to hold, or not, by the rows."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from pags_jax import explanation, questions, sweeps
from scripts import reproduce
from scripts.harness import report, store
from scripts.harness.experiment import Results
from scripts.pags import accuracy, alignment, answers, claims, converse, figures, generation, generative, robustness

STRENGTHS = (0.1, 1.0, 10.0)
CURVES = {
    "accuracy": {"rises and falls": (0.80, 0.81, 0.60), "stays": (0.80, 0.81, 0.80)},
    "on": {"rises and falls": (0.5, 0.6, 0.2), "stays": (0.5, 0.6, 0.6)},
    "off": {"below": (0.6, 0.1, 0.1), "above": (0.9, 0.9, 0.9)},
    "cosine": {"peaks": (0.1, 0.3, 0.2), "rises": (0.1, 0.2, 0.3)},
}


def rows_of(seeds=3, **chosen):
    """Rows of both runs; all seeds have the same curves, up to noise that keeps the medians."""
    curves = {name: CURVES[name][kind] for name, kind in chosen.items()}
    for seed in range(seeds):
        for k, strength in enumerate(STRENGTHS):
            row = {name: values[k] + 1e-4 * (seed - 1) for name, values in curves.items()}
            known = {"loss": "smoothness", "strength": strength, "seed": seed, "test_accuracy": row.pop("accuracy")}
            yield known | row | {
                "eps_l2": 2.637, "target": "logit", "sigma_pm1": 0.5, "similarity": row["cosine"] + 0.5,
                "off_share": (0.9, 0.4, 0.2)[k],
                "cosine_error": 0.01, "similarity_error": 0.02 if k else None,
            }  # fmt: skip


@pytest.fixture
def few_shuffles(monkeypatch):
    """They decide the p-values of the correlations, which the tests that take this look at none of."""
    monkeypatch.setattr(explanation, "SHUFFLES", 9)


def both(name="pags_robustness"):
    """A run of which both others are read, wherever they lie."""
    return Results(Path(), store.read_rows(Path(name)), {"pags_robustness": Path(), "pags_alignment": Path()})


@pytest.fixture
def line(monkeypatch, few_shuffles):
    """The claims' line for a sweep with such curves."""

    def read(**chosen):
        monkeypatch.setattr(store, "read_rows", lambda folder: list(rows_of(**chosen)))
        (found,) = claims.section(both())[1].data
        return found

    return read


def test_a_sweep_that_shows_everything(line):
    found = line(accuracy="rises and falls", on="rises and falls", off="below", cosine="peaks")
    assert list(found.values()) == [
        "smoothness",
        "yes, from strength 1 to 1",
        "yes, at 1 (0.100, 0.300, 0.200)",
        "yes, at 1 (0.600, 0.800, 0.700)",
        "yes (0.810 to 0.600)",
        "yes (0.600 to 0.200)",
    ]


def test_a_sweep_that_shows_nothing(line):
    found = line(accuracy="stays", on="stays", off="above", cosine="rises")
    assert list(found.values())[1:] == [
        "no",
        "no (0.100, 0.300, 0.300)",
        "no (0.600, 0.800, 0.800)",
        "no (0.810 to 0.800)",
        "no (0.600 to 0.600)",
    ]


@pytest.mark.usefixtures("few_shuffles")
def test_claims_are_of_the_gradient_that_the_configuration_names(monkeypatch):
    shape = {"accuracy": "rises and falls", "on": "rises and falls", "off": "below"}
    other = [row | {"target": "log_prob"} for row in rows_of(cosine="rises", **shape)]
    monkeypatch.setattr(store, "read_rows", lambda folder: [*rows_of(cosine="peaks", **shape), *other])
    named = dataclasses.replace(both(), config=figures.Config(target="log_prob"))
    assert [claims.claims(results)[1].verdict for results in (both(), named)] == ["shown", "not shown"]
    assert "log prob" in claims.section(named)[4].caption


def test_models_that_are_missing_are_left_out():
    table = [{"loss": "smoothness", "strength": s, "seed": 0, "on": on, "off": 1.0} for s, on in ((1, 0.3), (2, None))]
    on, off = questions.medians(table, "smoothness", "on", "off")
    np.testing.assert_array_equal(on, [0.3])
    np.testing.assert_array_equal(off, [1.0])


@pytest.mark.usefixtures("few_shuffles")
def test_a_loss_without_values_says_so(monkeypatch):
    """Of two losses, one has no usable map, and at one noise level neither has."""
    table = list(rows_of(accuracy="stays", on="stays", off="below", cosine="peaks"))
    gone = dict.fromkeys(("on", "off", "cosine", "similarity", "cosine_error", "similarity_error"))
    table += [row | gone | {"loss": "adversarial"} for row in table]
    monkeypatch.setattr(store, "read_rows", lambda folder: table)
    text, found, *_ = claims.section(both())
    assert "reach 0.010 of a cosine and 0.020 of 1 - LPIPS" in text
    usable, unusable = found.data
    assert usable["cosine peaks inside"].startswith("yes")
    assert list(unusable.values()) == [
        "adversarial",
        "no usable model",
        *2 * ["no usable map"],
        *2 * ["no usable model"],
    ]
    lines = alignment.section(both())[2].data
    unusable = [line for line in lines if line["loss"] == "adversarial"]
    assert [line["peaks inside"] for line in unusable] == ["no usable map"] * 2
    assert {line["largest"] for line in unusable} == {None}
    assert [line["peaks inside"] for line in lines if line["loss"] == "smoothness"] == ["yes"] * 2
    lines = robustness.section(both())[1].data
    assert [(line["rule"], line["aligned"]) for line in lines[:2]] == [("energy", "1 to 10"), ("unit steps", "1 to 10")]
    unknown = dict.fromkeys(("weak", "aligned", "excessive"), "none: no usable model")
    assert lines[3] == {"loss": "adversarial", "rule": "unit steps", **unknown, "agreement of seeds": None}


@pytest.mark.parametrize(
    ("rho", "p", "rho_given", "p_given", "verdict"),
    [
        (-0.8, 0.49, -0.9, 0.01, "not shown"),
        (0.9, 0.004, 0.9, 0.01, "not shown"),
        (None, None, None, None, "not shown"),
        (-0.75, 0.016, 0.08, 0.67, "partly"),
        (-0.75, 0.016, None, None, "partly"),
        (-0.75, 0.016, -0.6, 0.03, "shown"),
    ],
)
def test_an_explanation_is_shown_where_it_is_significant(monkeypatch, rho, p, rho_given, p_given, verdict):
    """As question 4 of the sweeps has it."""
    row = {"models": sweeps.ACCURATE, "alignment": "similarity", "measure": "off", "n": 13}
    row |= {"rho": rho, "p": p, "rho_given": rho_given, "p_given": p_given}
    table = list(rows_of(accuracy="stays", on="stays", off="below", cosine="peaks"))
    monkeypatch.setattr(store, "read_rows", lambda folder: table)
    monkeypatch.setattr(claims, "correlations", lambda results: [row])
    assert claims.claims(both())[-1].verdict == verdict


def test_accuracy_says_how_many_images_no_attack_could_test(monkeypatch):
    """The most at one radius and seed; rows from before these were counted say nothing."""
    row = {"loss": "adversarial", "strength": 1.0, "failure": None, "test_accuracy": 0.8, "attack_eps": [0.5, 1.0]}
    table = [row | {"test_attacked": [0.6, 0.4], "test_no_gradient": count} for count in ([0, 3], [7, 1])]
    table += [row | {"strength": 2.0, "test_attacked": [0.5, 0.2]}]
    monkeypatch.setattr(store, "read_rows", lambda folder: table)
    counted, before = accuracy.section(both())[1].data
    assert (counted["images without gradient"], counted["L2 radius 1"]) == (5, 0.4)
    assert before["images without gradient"] is None


def test_a_sweep_at_chance_has_no_regimes(monkeypatch):
    table = [
        row | {"test_accuracy": 0.11, "classes": 10}
        for row in rows_of(accuracy="stays", on="stays", off="below", cosine="peaks")
    ]
    monkeypatch.setattr(store, "read_rows", lambda folder: table)
    _, line = robustness.section(both())[1].data
    assert line["aligned"] == "none: 0 of 3 seeds show it; for 3 no strength's accuracy is above chance"


def test_figures_of_one_name_are_published_apart(tmp_path):
    """The sweep's accuracy was overwritten by that of the models beside a distractor."""
    for name in ("pags_train", "pags_distractor_train"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "accuracy.png").write_bytes(name.encode())
    every, texts = dict.fromkeys(("pags_train", "pags_distractor_train")), {"title": "Title", "lead": "Lead."}
    second = report.Figure(tmp_path / "pags_distractor_train" / "accuracy.png", "accuracy")
    sections = [report.Section("Beside", [second], {"pags_train/rows.csv": "pags_train/rows.csv"})]
    reproduce.publish(tmp_path / "published", tmp_path, every, texts, sections)
    page = (tmp_path / "published" / "README.md").read_text()
    assert "![accuracy](pags_distractor_train_accuracy.png)" in page
    assert "[pags_train.csv.gz](pags_train.csv.gz)" in page
    published = {path.name: path.read_bytes() for path in (tmp_path / "published").glob("*.png")}
    assert published == {
        "accuracy.png": b"pags_train", "pags_distractor_train_accuracy.png": b"pags_distractor_train",
    }  # fmt: skip


def drawn(loss, **by_task):
    """Rows of a model's drawings, of 100 images each; PSNR has a standard error of 0.1 before and after."""
    known = {"loss": loss, "strength": 0.5 * (loss != "cross_entropy"), "judged": 0.5, "config.images": 100}
    errors = {"psnr_start_error": 0.1, "psnr_result_error": 0.1}
    return [known | errors | {"task": task.replace("_", "-")} | row for task, row in by_task.items()]


@pytest.mark.parametrize(
    ("judged", "psnr", "verdicts"),
    [
        ((0.72, 0.75), (13.3, 13.4), ["shown", "shown", "partly"]),
        ((0.58, 0.75), (13.2, 13.4), ["partly", "partly", "partly"]),
        ((0.58, 0.57), (12.0, 13.2), ["not shown", "not shown", "partly"]),
    ],
)
def test_what_is_drawn_must_be_better_by_two_standard_errors(judged, psnr, verdicts):
    # Of shares .5 and .72 the error of the difference is .067, of both PSNRs .14, which 13.2 less 13 does not double.
    table = drawn("cross_entropy", counterfactual={}, denoising={}, in_painting={})
    table += drawn("denoiser", counterfactual={}, denoising={}, in_painting={})
    for loss, share, after in zip(("adversarial", "gradient_norm"), judged, psnr, strict=True):
        better = {"psnr_start": 13.0, "psnr_result": after}
        filled = {"psnr_start": 13.0, "psnr_result": 15.0 if loss == "adversarial" else 10.0}
        table += drawn(loss, counterfactual={"judged": share}, denoising=better, in_painting=filled)
    found = generation.claims(Results(Path(), table))
    assert [claim.verdict for claim in found] == verdicts
    each = [f"{loss} 0.5 0.5 to {share}" for loss, share in zip(("adversarial", "gradient norm"), judged, strict=True)]
    ends = [stats.binomtest(round(100 * share), 100).proportion_ci(method="exact") for share in judged]
    texts = [f"{text} (95 %: {low:.3g} to {high:.3g})" for text, (low, high) in zip(each, ends, strict=True)]
    assert found[0].number == "; ".join(texts)
    low, high = psnr[0] - 0.196, psnr[0] + 0.196
    assert f"13 to {psnr[0]:.3g} (95 %: {low:.3g} to {high:.3g})" in found[1].number
    unjudged = [row | {"judged": None} for row in table]
    assert [claim.verdict for claim in generation.claims(Results(Path(), unjudged))] == verdicts[1:]


@pytest.mark.parametrize(
    ("accuracy_", "attacked", "verdict"),
    [(0.79, 0.3, "shown"), (0.70, 0.3, "partly"), (0.79, 0.18, "not shown"), (0.70, 0.18, "not shown")],
)
def test_models_trained_to_align_must_be_more_robust_and_as_accurate(accuracy_, attacked, verdict):
    known = {"failure": None, "config.images": 100, "cosine": 0.1}
    table = [
        known | {"loss": "cross_entropy", "strength": 0.0, "test_accuracy": 0.8, "ensemble": 0.1},
        known | {"loss": "score_alignment", "strength": 1.0, "test_accuracy": accuracy_, "ensemble": attacked},
        {"failure": "diverged", "loss": "score_alignment", "strength": 10.0},
    ]
    (claim,) = converse.claims(Results(Path(), table))
    assert claim.verdict == verdict
    assert claim.number == f"accuracy under PGD and APGD: undefended 0.10; strength 1: {attacked:.2f}, cosine 0.100"


def test_the_summary_has_the_verdict_on_every_question():
    rows = [{"question": k, "loss": "all", "estimate": 4, "verdict": "shown"} for k in answers.QUESTIONS]
    rows[0] |= {"estimate": 0.889, "low": 0.887, "high": 0.891, "verdict": "partly"}
    rows[3] |= {"estimate": -0.4286, "p": 1.0, "verdict": "not shown"}
    rows.append({"question": 2, "loss": "smoothness", "estimate": 3, "verdict": "shown"})
    found = answers.claims(Results(Path(), rows))
    assert [claim.verdict for claim in found] == ["partly", "shown", "shown", "not shown", "shown", "shown"]
    assert [found[k].number for k in (0, 3)] == ["0.889 (0.887 to 0.891)", "-0.4286 (p = 1)"]


def test_trained_networks_have_a_table(tmp_path):
    """Its columns are named by the experiments as a sequence, which tables do not take."""
    table, *figures = generative.section(("train_error", "rows"))(Results(tmp_path, [{"rows": 3, "train_error": 0.5}]))
    assert report.as_text(table).splitlines()[1:] == ["train error  rows", "0.5          3"]
    assert not figures


def test_a_model_that_guesses_is_beyond_nothing():
    """Its gradient is noise: a ratio above the undefended model's is no success, and the loss stays in the count."""
    found = {"cross_entropy": (0.8, 1.1), "smoothness": (0.7, 1.3), "adversarial": (0.1, 9.0)}
    table = [
        {"loss": loss, "strength": 1.0, "seed": 0, "classes": 10, "test_accuracy": right, "ratio": ratio}
        for loss, (right, ratio) in found.items()
    ]
    claim = accuracy.beyond_undefended("it helps", table, "ratio", "{:.1f}")
    assert (claim.verdict, claim.number) == ("partly", "smoothness 1.3, adversarial none; undefended 1.1")
