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
from scripts.harness.experiment import Experiment, Part, Results, Row
from scripts.harness.lazy import jax, pags_jax
from scripts.pags import measuring, sweeps


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


EXPERIMENT = Experiment(
    "pags_answers", Config, rows_of, heading="The questions fixed beforehand", section=section,
    parts=(Part({"cifar10": {}}, reads={"robustness": "pags_robustness", "alignment": "pags_alignment"}),),
)  # fmt: skip
EXPERIMENT.run_as(__name__)
