"""Answer the questions that `benchmarks/README.md` fixes beforehand, from finished runs on one sweep.

    python -m scripts.pags.answers --robustness runs/pags_robustness --alignment runs/pags_alignment --out runs/answers

Six questions, numbered as there. One row for each, ``loss`` being all, and one for each loss or model that it asks
about: the number, its interval or p-value, and whether it is shown, partly or not. Nothing is measured here: intervals
are from the values of all images that both runs keep in ``values/``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np

from scripts.harness import cli, names, report
from scripts.harness.experiment import Experiment, Part, Results, Row, Verdict
from scripts.harness.lazy import jax, jnp, pags_jax
from scripts.pags import explain, tables
from scripts.pags.alignment import SMOOTHED
from scripts.pags.explain import BASELINE

SHOWN, PARTLY, NOT_SHOWN = get_args(Verdict)
ALL = "all"


@dataclass(frozen=True)
class Config(cli.Common):
    """Answer the questions fixed beforehand."""

    out: Path = Path("runs/pags_answers")
    robustness: Path = Path("runs/pags_robustness")
    """Finished run of scripts.pags.robustness."""
    alignment: Path = Path("runs/pags_alignment")
    """Finished run of scripts.pags.alignment, on the same models."""
    target: names.Target = "logit"
    """Gradient that is compared with its score."""
    sigma_pm1: cli.Positive = 0.5
    """Noise level of the score, the nearest that was measured."""
    eps: cli.Positive = 2.637
    """Length of the steps on and off the manifold, the nearest that was measured."""
    tolerance: cli.Probability = 0.02
    """How far below a sweep's best accuracy a model may lie before its strength is called excessive."""


def plan(config: Config) -> list[dict[str, Any]]:
    """One unit: all questions."""
    return [{"target": config.target, "seed": config.seed}]


def rows_of(config: Config, *, target: str, seed: int) -> list[Row]:
    """The answers to all questions."""
    del target, seed
    robust = tables.read(config.robustness, "--robustness", "pags_robustness")
    aligned = tables.read(config.alignment, "--alignment", "pags_alignment")
    at = pags_jax.sweeps.nearest(
        [row for row in aligned if row["target"] == config.target], "sigma_pm1", config.sigma_pm1
    )
    place = {"target": config.target, "sigma_pm1": at[0]["sigma_pm1"]}
    keys = jax.random.split(jax.random.key(config.seed), 2)
    similarity = values_of(config.alignment, aligned, "similarity", **place)
    return [
        undefended(values_of(config.alignment, aligned, "off_share", **place), at[0], key=keys[0]),
        *by_loss(at, 2, partial(three_regimes, config, aligned)),
        *by_loss(at, 3, partial(rise_and_fall, similarity, key=keys[1])),
        explained(config, robust, aligned),
        *by_loss(at, 5, partial(peak_before_fall, config, aligned, similarity)),
        *own_noise(config.alignment, aligned),
    ]


def values_of(folder: Path, table: Sequence[Row], column: str, **place: Any) -> dict[tuple[str, float], np.ndarray]:
    """Values of all images at one place, by loss and strength, means over seeds; NaN where any model has none."""
    found: dict[tuple[str, float], list[np.ndarray]] = {}
    for unit in dict.fromkeys(row["unit"] for row in table):
        part = [row for row in table if row["unit"] == unit]
        path = folder / "values" / f"{unit}.npz"
        if not path.is_file():
            raise ValueError(f"{path} is missing: the values of all images; measure again, with another --out")
        with np.load(path, allow_pickle=False) as file:
            for row, values in zip(part, file[column], strict=True):
                if all(row[name] == value for name, value in place.items()):
                    found.setdefault((row["loss"], row["strength"]), []).append(values.astype(np.float64))
    whole = np.all([np.isfinite(values) for group in found.values() for values in group], axis=0)
    return {key: np.where(whole, np.mean(group, axis=0), np.nan) for key, group in found.items()}


def sweep_of(values: dict[tuple[str, float], np.ndarray], loss: str) -> tuple[np.ndarray, np.ndarray]:
    """Strengths of a loss, 0 first, and values ``(images, strengths)``."""
    mine = {strength: column for (name, strength), column in values.items() if name in (loss, BASELINE)}
    strengths = sorted(mine)
    return np.array(strengths), np.stack([mine[strength] for strength in strengths], axis=1)


def by_loss(table: Sequence[Row], question: int, ask: Callable[[str], Row]) -> list[Row]:
    """A question's row for each loss, and the one for all: shown where three losses show it, partly where one does."""
    found = [{"question": question, "loss": loss} | ask(loss) for loss in pags_jax.sweeps.swept(table)]
    count = sum(row["verdict"] == SHOWN for row in found)
    verdict = SHOWN if count >= 3 else PARTLY if count else NOT_SHOWN
    return [{"question": question, "loss": ALL, "estimate": count, "verdict": verdict}, *found]


def undefended(shares: dict[tuple[str, float], np.ndarray], row: Row, *, key: jax.Array) -> Row:
    """Question 1: the undefended model's share against that of a gradient without direction."""
    interval = pags_jax.statistics.mean_interval(jnp.asarray(shares[BASELINE, 0.0], jnp.float32), key=key)
    isotropic = float(pags_jax.regimes.isotropic_share(row["rank"], row["size"]))
    estimate, low, high = (float(value) for value in interval)
    verdict = SHOWN if high >= isotropic else PARTLY if low > 0.5 else NOT_SHOWN
    found = {"question": 1, "loss": ALL, "estimate": estimate, "low": low, "high": high}
    return found | {"beside": isotropic, "verdict": verdict}


def three_regimes(config: Config, aligned: Sequence[Row], loss: str) -> Row:
    """Question 2: how many of the three regimes a sweep has, by energy."""
    found = pags_jax.sweeps.share_regimes_of(aligned, loss, target=config.target, tolerance=config.tolerance)
    spans = {label: found.span(label) if found else None for label in pags_jax.regimes.LABELS}
    count = sum(span is not None for span in spans.values())
    detail = "; ".join(f"{label} {span[0]:g} to {span[1]:g}" for label, span in spans.items() if span is not None)
    return {"estimate": count, "said": detail, "verdict": SHOWN if count == 3 else PARTLY if count == 2 else NOT_SHOWN}


def rise_and_fall(similarity: dict[tuple[str, float], np.ndarray], loss: str, *, key: jax.Array) -> Row:
    """Question 3: the rise to the peak, and as ``beside`` the fall from it, on images that did not choose the peak."""
    strengths, values = sweep_of(similarity, loss)
    peak = pags_jax.statistics.rise_and_fall(jnp.asarray(values, jnp.float32), key=key)
    rise, fall = ([float(value) for value in part] for part in (peak.rise, peak.fall))
    verdict = (SHOWN if fall[1] > 0 else PARTLY) if rise[1] > 0 else NOT_SHOWN
    detail = f"peak at {strengths[int(peak.place)]:g}; fall {fall[0]:.4f} ({fall[1]:.4f} to {fall[2]:.4f})"
    row = dict(zip(("estimate", "low", "high"), rise, strict=True))
    return row | {"beside": fall[0], "said": detail, "verdict": verdict}


def explained(config: Config, robust: Sequence[Row], aligned: Sequence[Row]) -> Row:
    """Question 4: the correlation with the off-manifold deviation, as ``beside`` that given the on-manifold one."""
    models = explain.joined(robust, aligned, eps=config.eps, target=config.target, sigma_pm1=config.sigma_pm1)
    (row,) = (
        row
        for row in explain.correlations(models)
        if (row["models"], row["alignment"], row["measure"]) == (explain.ACCURATE, "similarity", "off")
    )
    alone, given = (
        row[rho] is not None and row[rho] < 0 and row[p] < 0.05 for rho, p in (("rho", "p"), ("rho_given", "p_given"))
    )
    detail = f"{row['n']} models; given on: {explain.with_p(row['rho_given'], row['p_given'])}"
    return {
        "question": 4,
        "loss": ALL,
        "estimate": row["rho"],
        "p": row["p"],
        "beside": row["rho_given"],
        "said": detail,
        "verdict": SHOWN if alone and given else PARTLY if alone else NOT_SHOWN,
    }


def peak_before_fall(
    config: Config, aligned: Sequence[Row], similarity: dict[tuple[str, float], np.ndarray], loss: str
) -> Row:
    """Question 5: the strength of the peak, and as ``beside`` the first excessive one, None if accuracy never falls."""
    strengths, values = sweep_of(similarity, loss)
    means = np.nanmean(values, axis=0) if np.isfinite(values).any() else np.full(len(strengths), np.nan)
    found = pags_jax.sweeps.share_regimes_of(aligned, loss, target=config.target, tolerance=config.tolerance)
    if found is None or np.isnan(means).any():
        return {"estimate": None, "said": "no usable map", "verdict": NOT_SHOWN}
    peak, span = float(strengths[means.argmax()]), found.span("excessive")
    falls = None if span is None else span[0]
    return {"estimate": peak, "beside": falls, "verdict": SHOWN if falls is None or peak < falls else NOT_SHOWN}


def own_noise(folder: Path, aligned: Sequence[Row]) -> list[Row]:
    """Question 6: the noise level at which each smoothing model's gradient is most like Bayes', beside its own."""
    trained = sorted({row["strength"] for row in aligned if row["loss"] == SMOOTHED and row["strength"] > 0})
    levels = [2 * strength for strength in trained]
    curves = [values_of(folder, aligned, "cosine", target="log_prob", sigma_pm1=level) for level in levels]
    found = []
    for strength in trained:
        means = [float(np.nanmean(values[SMOOTHED, strength])) for values in curves]
        best = levels[int(np.argmax(means))]
        detail = ", ".join(f"{level:g}: {mean:.4f}" for level, mean in zip(levels, means, strict=True))
        row = {"question": 6, "loss": SMOOTHED, "strength": strength, "estimate": best, "beside": 2 * strength}
        found.append(row | {"said": detail, "verdict": SHOWN if best == 2 * strength else NOT_SHOWN})
    count = sum(row["verdict"] == SHOWN for row in found)
    verdict = SHOWN if count >= 3 else PARTLY if count == 2 else NOT_SHOWN
    return [{"question": 6, "loss": ALL, "estimate": count, "verdict": verdict}, *found]


def section(results: Results) -> list[report.Block]:
    """The questions that were fixed beforehand, and their answers."""
    columns = ("question", "loss", "strength", "estimate", "low", "high", "p", "beside", "verdict", "said")
    lines = [{name: row.get(name) for name in columns} for row in results.rows]
    return [
        "Questions, tests and what is called shown were written in benchmarks/README.md before the sweep was measured; "
        "numbers as there. A line for all losses, and one for each.",
        report.Table(lines, "Answers.", columns={name: name for name in columns} | {"said": "detail"}, digits=3),
    ]


EXPERIMENT = Experiment(
    "pags_answers", Config, plan, rows_of, heading="The questions fixed beforehand", section=section,
    parts=(Part({"cifar10": {}}, reads={"robustness": "pags_robustness", "alignment": "pags_alignment"}),),
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(EXPERIMENT.run())
