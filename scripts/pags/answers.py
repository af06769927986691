"""Answer the questions that `benchmarks/README.md` fixes beforehand, from finished runs on one sweep.

    python -m scripts.pags.answers --robustness runs/pags_robustness --alignment runs/pags_alignment --out runs/answers

The six questions have the same numbers there. Each has a row for all losses, and one for each loss or model that it is
about, with the number, its interval or p-value, and the verdict: shown, partly or not shown. Nothing is measured here:
intervals come from the values of all images that both runs store in ``values/``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from scripts.harness import report
from scripts.harness.experiment import Claim, Experiment, Part, Results, Row
from scripts.harness.lazy import jax, pags_jax
from scripts.pags import sweeps

QUESTIONS = {
    1: "The undefended gradient is as an isotropic one or further off the manifold (share of energy off it).",
    2: "There are three regimes by the energy of gradients (losses that have all three).",
    3: "Alignment rises to a peak and falls from it (losses that do).",
    4: "Off-manifold robustness explains alignment among accurate models (rank correlation).",
    5: "Alignment peaks before accuracy falls (losses whose does).",
    6: "Smoothing finds its own noise level (models that do).",
}
"""What is fixed beforehand, and what the number is of."""
HOLDS = {"shown": (True,), "partly": (True, False), "not shown": (False,)}


@dataclass(frozen=True)
class Config(sweeps.PlaceConfig):
    """Answer the questions fixed beforehand."""

    robustness: Path = Path("runs/pags_robustness")
    """Finished run of scripts.pags.robustness."""
    alignment: Path = Path("runs/pags_alignment")
    """Finished run of scripts.pags.alignment, on the same models."""


def plan(config: Config) -> list[dict[str, Any]]:
    """One unit: all questions."""
    return [{"target": config.target, "seed": config.seed}]


def rows_of(config: Config, *, target: str, seed: int) -> list[Row]:
    """The answers to all questions."""
    robust = sweeps.read(config.robustness, "--robustness", "pags_robustness")
    aligned = sweeps.read(config.alignment, "--alignment", "pags_alignment")
    sweeps.check_same_models(robust, aligned)
    values = partial(values_of, config.alignment, aligned)
    return pags_jax.questions.answers(
        robust, aligned, values, config.place._replace(target=target), key=jax.random.key(seed)
    )


def values_of(folder: Path, table: Sequence[Row], column: str, **place: Any) -> dict[tuple[str, float], np.ndarray]:
    """Values of all images at one place, by loss and strength, averaged over seeds; NaN where a model has none."""
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


def section(results: Results) -> list[report.Block]:
    """The questions that were fixed beforehand, and their answers."""
    columns = ("question", "loss", "strength", "estimate", "low", "high", "p", "beside", "verdict", "detail")
    lines = [{name.replace("beside", "compared with"): row.get(name) for name in columns} for row in results.rows]
    return [
        "The questions, their tests and the rules of the verdicts were written into benchmarks/README.md before the "
        "sweep was measured, with the same numbers. A question has a line for all losses, or one for each as well.",
        report.Table(lines, "Answers.", digits=3),
    ]


def claims(results: Results) -> list[Claim]:
    """The verdict on each question, with its number."""
    found = []
    for row in report.where(results.rows, loss="all"):
        low, high, p = row.get("low"), row.get("high"), row.get("p")
        number = report.number(row["estimate"]) + (f" ({report.number(low)} to {report.number(high)})" if low else "")
        number += f" (p = {report.number(p)})" if p is not None else ""
        found.append(Claim(QUESTIONS[row["question"]], HOLDS[row["verdict"]], number))
    return found


EXPERIMENT = Experiment(
    "pags_answers", Config, rows_of, plan, heading="The questions fixed beforehand", section=section, claims=claims,
    parts=(Part({"cifar10": {}}, reads={"robustness": "pags_robustness", "alignment": "pags_alignment"}),),
)  # fmt: skip
EXPERIMENT.run_as(__name__)
