"""The main job: both papers' experiments on bundled real data, at laptop scale, in one report.

Three sizes, all ending in runs/reproduce/report.html:

    python -m scripts.reproduce                     # about twelve minutes on two cores
    python -m scripts.reproduce --preset quick      # a smoke run
    python -m scripts.reproduce --preset paper      # the papers' grids

and the sweep of robust models on CIFAR-10 that `benchmarks/README.md` fixes beforehand: hours on two cores, which may
be stopped and resumed at any moment:

    python -m scripts.reproduce --preset cifar10 --out runs/cifar10
"""

import dataclasses
import gzip
import io
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import jax
import numpy as np

from fmu_jax.deletion import files
from scripts.fmu import audit as fmu_audit
from scripts.fmu import certificates as fmu_certificates
from scripts.fmu import embeddings as fmu_embeddings
from scripts.fmu import groups as fmu_groups
from scripts.fmu import interventions as fmu_interventions
from scripts.fmu import published_noise as fmu_published_noise
from scripts.fmu import removal as fmu_removal
from scripts.fmu import report as fmu_report
from scripts.fmu import stream as fmu_stream
from scripts.fmu import tradeoff as fmu_tradeoff
from scripts.harness import cli, report, rows, store
from scripts.pags import alignment as pags_alignment
from scripts.pags import answers as pags_answers
from scripts.pags import autoencoder as pags_autoencoder
from scripts.pags import bayes as pags_bayes
from scripts.pags import distractor as pags_distractor
from scripts.pags import figures as pags_figures
from scripts.pags import measuring as pags_measuring
from scripts.pags import report as pags_report
from scripts.pags import robustness as pags_robustness
from scripts.pags import score as pags_score
from scripts.pags import train as pags_train

FMU = (
    fmu_removal, fmu_certificates, fmu_tradeoff, fmu_interventions, fmu_stream, fmu_published_noise, fmu_audit,
    fmu_groups, fmu_embeddings,
)  # fmt: skip
#: One seed, of thousands of draws, or on the side.
ONCE = (fmu_audit, fmu_groups, fmu_embeddings)
#: Smaller than the scripts' own presets, to save time.
SMALLER: dict[str, dict[ModuleType, dict[str, Any]]] = {
    "none": {
        fmu_tradeoff: {"penalties": ("equalized_odds", "demographic_parity")},
        fmu_groups: {"datasets": ("compas",), "fractions": (0.05,), "penalties": ("equalized_odds",)},
        fmu_embeddings: {"datasets": ("compas",), "counts": (1, 100), "private_steps": 100},
    },
    "quick": {fmu_groups: {"datasets": ("compas",), "penalties": ("equalized_odds",)}},
}

#: What the sweep of robust models is trained with, by preset: half as wide as the scripts' default, to save time.
TRAINING: dict[str, dict[str, Any]] = {
    "none": {
        "width": 0.5, "train_rows": 4000, "epochs": 5, "steps": 3, "attack_eps": (0.5, 1.0, 1.5), "attack_steps": 10,
        "attack_rows": 100,
    },
    "quick": {
        "width": 0.25, "epochs": 3, "steps": 2, "attack_eps": (0.5,), "attack_steps": 2, "attack_rows": 100,
        "train_rows": 1024, "loss": ("cross_entropy", "gradient_norm", "adversarial"), "strengths": (0.1, 1.0),
    },
    "paper": {"epochs": 40, "steps": 10, "attack_eps": (0.5, 1.0, 1.5), "attack_steps": 20, "attack_rows": 1000},
}  # fmt: skip
#: From small to large; a step of 2.637, which the paper's figures show, on 3,072 values is one of 1.33 on 784.
LENGTHS: dict[str, dict[str, Any]] = {"none": {"eps": (0.07, 0.43, 1.33, 2.637, 5.0)}, "quick": {}, "paper": {}}
BESIDE_A_DISTRACTOR: dict[str, dict[str, Any]] = {
    name: values
    | {"dataset": "distractor", "loss": ("cross_entropy", "gradient_norm", "adversarial"), "strengths": (1.0,)}
    for name, values in TRAINING.items()
}

LEAD = """
Fair machine unlearning (Oesterling et al. 2024) on real data: train on a fair objective, forget rows, certify the
removal, see what happened to fairness. Perceptually-aligned gradients (Srinivas et al. 2023) on real images: train
classifiers to be robust, and see which robustness makes their gradients look like the data. Bands span the smallest to
the largest of the seeds.
"""

CIFAR10_LEAD = """
Robust classifiers of CIFAR-10 (Srinivas et al. 2023): from which strength are their gradients on the data manifold, and
where do they look most like the score of the data? Questions and tests were fixed beforehand, in benchmarks/README.md.
"""


@dataclass(frozen=True)
class Config(cli.Common):
    """Run every experiment and write one report."""

    PRESETS: ClassVar = {"quick": {"repeats": 1}, "paper": {"repeats": 5, "sweeps": 5}, "cifar10": {}}

    out: Path = Path("runs/reproduce")
    repeats: cli.Count = 3
    """Seeds of every experiment on fair unlearning."""
    sweeps: cli.Count = 1
    """Seeds of the sweeps of robust models, which take minutes each."""
    hsls: Path | None = None
    """Your HSLS:09 public-use file or folder; given, it joins the data sets."""
    cifar10: Path | None = None
    """Folder of CIFAR-10's binary version, for --preset cifar10; by default it is downloaded."""
    publish: Path | None = None
    """Also copy all rows (compressed) and figures to this folder, as those of benchmarks/README.md were."""


def parts(config: Config) -> dict[str, tuple[ModuleType, Any]]:
    """Module and configuration of each part, by the name of its folder, in order; its own preset applied first."""
    return cifar10_parts(config) if config.preset == "cifar10" else fmu_parts(config) | pags_parts(config)


def cifar10_parts(config: Config) -> dict[str, tuple[ModuleType, Any]]:
    """The sweep on CIFAR-10; every part's preset is the experiment as it was fixed beforehand."""
    images = {"folder": config.cifar10}
    made = {name: config.out / f"pags_{name}" for name in ("robustness", "alignment")}
    measured = {
        "trained": config.out / "pags_train",
        "autoencoder": config.out / "pags_autoencoder" / "autoencoder.safetensors",
        "denoiser": config.out / "pags_score" / "denoiser.safetensors",
    }
    return {
        _name(module): (
            module,
            part_of(config, module, _name(module), **values),
        )
        for module, values in (
            (pags_train, images | {"repeats": config.sweeps}),
            (pags_autoencoder, images),
            (pags_score, images),
            (pags_robustness, measured),
            (pags_alignment, measured),
            (pags_answers, made),
            (pags_figures, made | {"trained": measured["trained"]}),
        )
    }


def fmu_parts(config: Config) -> dict[str, tuple[ModuleType, Any]]:
    """Fair machine unlearning."""
    found = {}
    for module in FMU:
        name = _name(module)
        values: dict[str, Any] = {"hsls": config.hsls, "repeats": 1 if module in ONCE else config.repeats}
        values |= SMALLER.get(config.preset, {}).get(module, {})
        if config.hsls is not None and module not in ONCE:
            values["datasets"] = (*module.Config.datasets, "hsls")
        found[name] = (module, part_of(config, module, name, **values))
    return found


def pags_parts(config: Config) -> dict[str, tuple[ModuleType, Any]]:
    """Perceptually-aligned gradients."""
    repeats = {"repeats": config.sweeps}
    sweep, beside = config.out / "pags_train", config.out / "pags_distractor_train"
    runs = {name: config.out / f"pags_{name}" for name in ("robustness", "alignment", "distractor")}
    return {
        name: (module, part_of(config, module, name, **values))
        for name, module, values in (
            ("pags_train", pags_train, TRAINING[config.preset] | repeats),
            ("pags_robustness", pags_robustness, {"trained": sweep} | LENGTHS[config.preset]),
            (
                "pags_robustness_varying",
                pags_robustness,
                {"trained": sweep, "pixels": "varying"} | LENGTHS[config.preset],
            ),
            ("pags_alignment", pags_alignment, {"trained": sweep}),
            ("pags_distractor_train", pags_train, BESIDE_A_DISTRACTOR[config.preset] | repeats),
            ("pags_distractor", pags_distractor, {"trained": beside}),
            ("pags_bayes", pags_bayes, {}),
            ("pags_figures", pags_figures, runs),
        )
    }


def _name(module: ModuleType) -> str:
    """Of an experiment, which is also that of its folder: fmu_audit for scripts.fmu.audit."""
    return module.__name__.removeprefix("scripts.").replace(".", "_")


def part_of(config: Config, module: ModuleType, name: str, **values: Any) -> Any:
    """A part's configuration: its preset, then ``values``."""
    preset = dict(module.Config.PRESETS.get(config.preset, {}))
    here = {"preset": config.preset, "seed": config.seed, "out": config.out / name}
    return dataclasses.replace(module.Config(), **preset | here | values)


def plan(config: Config) -> list[str]:
    """All units of all parts."""
    every, units = parts(config), []
    for name, (module, part) in every.items():
        if isinstance(part, pags_measuring.MeasuringConfig):  # One for each model, which may not be trained yet.
            found = pags_measuring.units(pags_train.plan(every[part.trained.name][1]))
        else:
            found = module.plan(part)
        units += [f"{name}/{store.unit_name(unit)}" for unit in found]
    return units


def main(config: Config) -> None:
    """Runs what is not done yet, then writes the report."""
    timing = {}
    for name, (module, part) in parts(config).items():
        jax.config.update("jax_enable_x64", module in FMU)  # Certificates want float64, images float32.
        begin = time.perf_counter()
        module.main(part)
        timing[name] = time.perf_counter() - begin
    title, lead, fmu = (
        "Fair machine unlearning and perceptually-aligned gradients, reproduced",
        LEAD,
        fmu_report.sections,
    )
    if config.preset == "cifar10":
        title, lead, fmu = "Perceptually-aligned gradients on CIFAR-10", CIFAR10_LEAD, lambda folder: []
    path = report.write(
        config.out / "report.html",
        title,
        [*fmu(config.out), *pags_report.sections(config.out)],
        lead=lead,
        config=config,
        environment=rows.environment(),
        timing_s=timing,
    )
    if config.publish is not None:
        publish(config)
    print(f"report: {path}")


def publish(config: Config) -> None:
    """Copies every part's rows, as reproducible ``.csv.gz``, and figures.

    Where an earlier part has a figure of the same name, the part's name goes in front.
    """
    folder = config.publish or Path()
    taken: set[str] = set()
    for name in parts(config):
        table = config.out / name / "rows.csv"
        if table.exists():
            files.write_bytes(folder / f"{name}.csv.gz", gzip.compress(table.read_bytes(), mtime=0))
        values = sorted((config.out / name / "values").glob("*.npz"))
        if values:
            files.write_bytes(folder / f"{name}_values.npz", gathered(values))
        for figure in sorted((config.out / name).glob("*.png")):
            shown = f"{name}_{figure.name}" if figure.name in taken else figure.name
            taken.add(shown)
            files.write_bytes(folder / shown, figure.read_bytes())


def gathered(paths: Sequence[Path]) -> bytes:
    """One npz of several: arrays are named UNIT/COLUMN."""
    arrays = {}
    for path in paths:
        with np.load(path, allow_pickle=False) as file:
            arrays |= {f"{path.stem}/{name}": file[name] for name in file.files}
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    return content.getvalue()


if __name__ == "__main__":
    sys.exit(cli.run(main, Config, plan=plan))
