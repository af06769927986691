"""Answer the questions that `benchmarks/README.md` fixes beforehand, from finished runs on one sweep.

    python -m scripts.pags.answers --robustness runs/pags_robustness --alignment runs/pags_alignment --out runs/answers

See `pags_jax.questions`. Nothing is measured here: intervals come from the values of all images in ``values/``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from scripts.harness import report
from scripts.harness.experiment import Claim, Experiment, Part, Results, Row
from scripts.harness.lazy import jax, pags_jax
from scripts.pags import measuring, sweeps

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

    def units(self) -> list[dict[str, Any]]:
        """One unit: all questions."""
        return [{"target": self.target, "seed": self.seed}]


def rows_of(config: Config, *, target: str, seed: int) -> list[Row]:
    """The answers to all questions."""
    robust, aligned = sweeps.read(config.robustness, "robustness"), sweeps.read(config.alignment, "alignment")
    sweeps.check_same_models(robust, aligned)
    place, folder = config.place._replace(target=target), config.alignment / "values"
    values = partial(pags_jax.sweeps.values_of, aligned, lambda unit: measuring.load_arrays(folder / f"{unit}.npz"))
    return pags_jax.questions.answers(robust, aligned, values, place, key=jax.random.key(seed))


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
    "pags_answers", Config, rows_of, heading="The questions fixed beforehand", section=section, claims=claims,
    parts=(Part({"cifar10": {}}, reads={"robustness": "pags_robustness", "alignment": "pags_alignment"}),),
)  # fmt: skip
EXPERIMENT.run_as(__name__)
