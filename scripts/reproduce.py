"""The main job: both papers' experiments on bundled real data, at laptop scale, in one report.

Three sizes, all ending in runs/reproduce/report.html:

    python -m scripts.reproduce                     # about two minutes on two cores
    python -m scripts.reproduce --preset quick      # a smoke run
    python -m scripts.reproduce --preset paper      # the papers' grids
"""

import dataclasses
import gzip
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from scripts import (
    fmu_audit,
    fmu_certificates,
    fmu_interventions,
    fmu_published_noise,
    fmu_removal,
    fmu_report,
    fmu_stream,
    fmu_tradeoff,
)
from scripts.harness import cli, files, report, rows, store

#: The parts of the job: name of the subfolder and module.
PARTS = {
    "fmu_removal": fmu_removal,
    "fmu_certificates": fmu_certificates,
    "fmu_tradeoff": fmu_tradeoff,
    "fmu_interventions": fmu_interventions,
    "fmu_stream": fmu_stream,
    "fmu_published_noise": fmu_published_noise,
    "fmu_audit": fmu_audit,
}

LEAD = """
Fair machine unlearning (Oesterling et al. 2024) on real data: train on a fair objective, forget rows, certify the
removal, see what happened to fairness. Bands span the smallest to the largest of the seeds.
"""


@dataclass(frozen=True)
class Config(cli.Common):
    """Run every experiment and write one report."""

    PRESETS: ClassVar = {"quick": {"repeats": 1}, "paper": {"repeats": 5}}

    out: Path = Path("runs/reproduce")
    repeats: cli.Count = 3
    """Seeds of every experiment."""
    hsls: Path | None = None
    """Your HSLS:09 public-use file or folder; given, it joins the data sets."""
    publish: Path | None = None
    """Also copy all rows (compressed) and figures to this folder, as README's results were."""


def parts(config: Config) -> dict[str, Any]:
    """Configuration of each part, its own preset applied first."""
    configs = {}
    for name, module in PARTS.items():
        base = module.Config(preset=config.preset)
        values = dict(module.Config.PRESETS.get(config.preset, {}))
        if config.preset == "none" and name == "fmu_tradeoff":
            values["penalties"] = ("equalized_odds", "demographic_parity")
        repeats = 1 if name == "fmu_audit" else config.repeats  # Ten thousand draws a seed are enough.
        values |= {"out": config.out / name, "seed": config.seed, "repeats": repeats, "hsls": config.hsls}
        if config.hsls is not None and name != "fmu_audit":
            values["datasets"] = (*base.datasets, "hsls")
        configs[name] = dataclasses.replace(base, **values)
    return configs


def plan(config: Config) -> list[str]:
    """All units of all parts."""
    return [
        f"{name}/{store.unit_name(unit)}" for name, part in parts(config).items() for unit in PARTS[name].plan(part)
    ]


def main(config: Config) -> None:
    """Runs what is not done yet, then writes the report."""
    timing = {}
    for name, part in parts(config).items():
        begin = time.perf_counter()
        PARTS[name].main(part)
        timing[name] = time.perf_counter() - begin
    path = report.write(
        config.out / "report.html",
        "Fair machine unlearning, reproduced",
        fmu_report.sections(config.out),
        lead=LEAD,
        config=config,
        environment=rows.environment(),
        timing_s=timing,
    )
    if config.publish is not None:
        publish(config.out, config.publish)
    print(f"report: {path}")


def publish(out: Path, folder: Path) -> None:
    """Copies every part's rows, as reproducible ``.csv.gz``, and figures."""
    for name in PARTS:
        table = (out / name / "rows.csv").read_bytes()
        files.write_bytes(folder / f"{name}.csv.gz", gzip.compress(table, mtime=0))
        for figure in sorted((out / name).glob("*.png")):
            files.write_bytes(folder / figure.name, figure.read_bytes())


if __name__ == "__main__":
    sys.exit(cli.run(main, Config, plan=plan))
