"""The sweep on Fashion-MNIST that `benchmarks/README.md` fixes beforehand: trained, measured, answered and published.

    python -m benchmarks.pags_fashion --publish benchmarks/results/pags_fashion

Every step is an experiment of its own with the flags below; all of them resume, so that the command may be stopped at
any moment. Which steps: ``--steps``.
"""

import gzip
import sys
from dataclasses import dataclass
from pathlib import Path

from fmu_jax.deletion import files
from scripts import registry, reproduce
from scripts.harness import cli

TRAINING = (
    "--width 0.5 --train-rows 4000 --epochs 6 --batch-size 32 --schedule linear --steps 3 --attack-eps 0.5 1 1.5 "
    "--attack-steps 10 --attack-rows 100"
)
MEASURING = "--trained {out}/pags_train --images 100"
LENGTHS = "--eps 0.07 0.43 1.33 2.637 5"
STEPS: dict[str, tuple[str, str]] = {
    "pags_train": ("pags_train", TRAINING),
    "judge": ("pags_train", f"{TRAINING} --loss cross_entropy --activation relu --seed 1"),
    "pags_robustness": ("pags_robustness", f"{MEASURING} {LENGTHS}"),
    "pags_robustness_varying": ("pags_robustness", f"{MEASURING} {LENGTHS} --pixels varying"),
    "pags_alignment": ("pags_alignment", MEASURING),
    "pags_alignment_varying": ("pags_alignment", f"{MEASURING} --pixels varying"),
    "pags_answers": (
        "pags_answers",
        "--robustness {out}/pags_robustness --alignment {out}/pags_alignment --eps 1.33",
    ),
    "pags_answers_varying": (
        "pags_answers",
        "--robustness {out}/pags_robustness_varying --alignment {out}/pags_alignment_varying --eps 1.33",
    ),
    "pags_figures": (
        "pags_figures",
        "--trained {out}/pags_train --robustness {out}/pags_robustness --alignment {out}/pags_alignment --eps 1.33",
    ),
    "pags_generation": ("pags_generation", f"{MEASURING} --judge {{out}}/judge"),
    "pags_certify": ("pags_certify", MEASURING),
    "pags_converse": ("pags_converse", MEASURING),
}
"""By the name of its run folder: the experiment and its flags."""


@dataclass(frozen=True)
class Config(cli.Common):
    """Run the sweep on Fashion-MNIST."""

    out: Path = Path("runs/fashion")
    """Folder of the run folders."""
    publish: Path | None = None
    """Also copy all rows (compressed), values of all images and figures to this folder."""
    steps: tuple[str, ...] = tuple(STEPS)
    """Which steps, in this order; those before them must be finished."""


def main(config: Config) -> None:
    """Run the steps, then publish what is finished.

    Raises:
      ValueError: An unknown step, or one that failed.
    """
    unknown = [name for name in config.steps if name not in STEPS]
    if unknown:
        raise ValueError(f"--steps: expected some of {', '.join(STEPS)}, got {unknown[0]}")
    for name in config.steps:
        experiment, flags = STEPS[name]
        words = [*flags.format(out=config.out).split(), "--out", str(config.out / name)]
        if registry.experiment(experiment).run(words):
            raise ValueError(f"{name} failed; its command: python -m scripts.{experiment.replace('_', '.', 1)} {flags}")
    if config.publish is not None:
        publish(config.out, config.publish)


def publish(out: Path, folder: Path) -> None:
    """Copy rows, values and figures of the finished steps, by its step's name a figure whose name another one has."""
    taken: dict[str, bytes] = {}
    for name in STEPS:
        if (out / name / "rows.jsonl").exists():
            content = gzip.compress((out / name / "rows.csv").read_bytes(), mtime=0)
            files.write_bytes(folder / f"{name}.csv.gz", content)
        values = sorted((out / name / "values").glob("*.npz"))
        if values:
            files.write_bytes(folder / f"{name}_values.npz", reproduce.gathered(values))
        for figure in sorted((out / name).glob("*.png")):
            content = figure.read_bytes()
            if taken.get(figure.name) != content:  # The figure of all steps draws some anew.
                target = figure.name if figure.name not in taken else f"{name}_{figure.name}"
                taken[target] = content
                files.write_bytes(folder / target, content)


if __name__ == "__main__":
    sys.exit(cli.run(main, Config, plan=lambda config: list(config.steps)))
