"""The sweep on Fashion-MNIST that `benchmarks/README.md` fixes beforehand: trained, measured, answered and published.

    python -m benchmarks.pags_fashion --publish benchmarks/results/pags_fashion

Every step is an experiment of its own with the flags below; all of them resume, so that the command may be stopped at
any moment. Which steps: ``--steps``. The sweep on CIFAR-10 is `python -m scripts.reproduce --preset cifar10`.
"""

import gzip
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fmu_jax.deletion import files
from scripts import registry, reproduce
from scripts.harness import cli

Steps = dict[str, tuple[str, str]]
"""By the name of its run folder: the experiment and its flags."""
MEASURED = "--robustness {out}/pags_robustness --alignment {out}/pags_alignment"

TRAINING = (
    "--width 0.5 --train-rows 4000 --epochs 6 --batch-size 32 --schedule linear --steps 3 --attack-eps 0.5 1 1.5 "
    "--attack-steps 10 --attack-rows 100"
)
MEASURING = "--trained {out}/pags_train --images 100"
LENGTHS = "--eps 0.07 0.43 1.33 2.637 5"
STEPS: Steps = {
    "pags_train": ("pags_train", TRAINING),
    "judge": ("pags_train", f"{TRAINING} --loss cross_entropy --activation relu --seed 1"),
    "pags_robustness": ("pags_robustness", f"{MEASURING} {LENGTHS}"),
    "pags_robustness_varying": ("pags_robustness", f"{MEASURING} {LENGTHS} --pixels varying"),
    "pags_alignment": ("pags_alignment", MEASURING),
    "pags_alignment_varying": ("pags_alignment", f"{MEASURING} --pixels varying"),
    "pags_answers": ("pags_answers", f"{MEASURED} --eps 1.33"),
    "pags_answers_varying": (
        "pags_answers",
        "--robustness {out}/pags_robustness_varying --alignment {out}/pags_alignment_varying --eps 1.33",
    ),
    "pags_figures": ("pags_figures", f"--trained {{out}}/pags_train {MEASURED} --eps 1.33"),
    "pags_generation": ("pags_generation", f"{MEASURING} --judge {{out}}/judge"),
    "pags_certify": ("pags_certify", MEASURING),
    "pags_converse": ("pags_converse", MEASURING),
}


@dataclass(frozen=True)
class Config(cli.Common):
    """Run the sweep on Fashion-MNIST."""

    out: Path = Path("runs/pags_fashion")
    """Folder of all run folders."""
    publish: Path | None = None
    """Also copy all rows (compressed), values of all images and figures to this folder."""
    steps: tuple[str, ...] = ()
    """Which steps, in this order; those before them must be finished. By default all steps."""


def steps_of(config: Config) -> dict[str, tuple[str, list[str]]]:
    """The steps to run, by the names of their run folders: experiment and flags.

    Raises:
      ValueError: An unknown step.
    """
    unknown = [name for name in config.steps if name not in STEPS]
    if unknown:
        raise ValueError(f"--steps: expected some of {', '.join(STEPS)}, got {unknown[0]}")
    chosen = {name: STEPS[name] for name in config.steps or STEPS}

    def words(flags: str, name: str) -> list[str]:
        return [*(word.format(out=config.out) for word in flags.split()), "--out", str(config.out / name)]

    return {name: (experiment, words(flags, name)) for name, (experiment, flags) in chosen.items()}


def main(config: Config) -> None:
    """Run the steps, then publish what is finished.

    Raises:
      ValueError: An unknown step, or one that failed.
    """
    for name, (experiment, words) in steps_of(config).items():
        if registry.experiment(experiment).run(words):
            command = f"python -m scripts.{experiment.replace('_', '.', 1)} {' '.join(words)}"
            raise ValueError(f"{name} failed; its command: {command}")
    if config.publish is not None:
        publish(config.out, STEPS, config.publish)


def publish(out: Path, steps: Iterable[str], folder: Path) -> None:
    """Copy rows, values and figures of the finished steps, by its step's name a figure whose name another one has."""
    taken: dict[str, bytes] = {}
    for name in steps:
        if (out / name / "rows.jsonl").exists():
            content = gzip.compress((out / name / "rows.csv").read_bytes(), mtime=0)
            files.write_bytes(folder / f"{name}.csv.gz", content)
        values = sorted((out / name / "values").glob("*.npz"))
        if values:
            reproduce.gather(values, folder / f"{name}_values.npz")
        for figure in sorted((out / name).glob("*.png")):
            content = figure.read_bytes()
            if taken.get(figure.name) != content:  # The figure of all steps draws some anew.
                target = figure.name if figure.name not in taken else f"{name}_{figure.name}"
                taken[target] = content
                files.write_bytes(folder / target, content)


if __name__ == "__main__":
    sys.exit(cli.run(main, Config, plan=lambda config: list(steps_of(config))))
