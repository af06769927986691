"""The main job: both papers' experiments on bundled real data, at laptop scale, in one report.

It has five sizes, which all end in report.html of the run folder, runs/reproduce by default:

    python -m scripts.reproduce                     # about 6 minutes on two cores; --repeats 2: another seed
    python -m scripts.reproduce --preset quick      # a smoke run
    python -m scripts.reproduce --preset full       # more seeds, noise levels and strengths: about fifteen minutes
    python -m scripts.reproduce --preset paper      # the papers' grids
    python -m scripts.reproduce --preset cifar10    # the sweep of benchmarks/README.md: hours; resumes after a stop

Parts run side by side, each in a process of its own; they share nothing but finished run folders. On an accelerator, or
with --mesh or --coordinator, they run one after the other.
"""

import concurrent.futures
import dataclasses
import gc
import gzip
import multiprocessing
import os
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from fmu_jax.deletion import files
from scripts import registry
from scripts.harness import cli, compiling, mesh, progress, report, rows, store
from scripts.harness.experiment import Experiment, Part, Results
from scripts.harness.lazy import jax
from scripts.pags import measuring

TEXTS = tomllib.loads(Path(__file__).with_name("report.toml").read_text(encoding="utf-8"))
"""Titles and first words of the report by preset, and its terms."""
MODELS = {"pags_undefended": "undefended", "pags_autoencoder": "autoencoder", "pags_score": "denoiser"}
"""What files of models are called that the sweep on CIFAR-10 starts from, by the part that trains them."""
PAPERS = {"fmu": "Fair unlearning", "pags": "Aligned gradients"}


@dataclass(frozen=True)
class Config(cli.Common):
    """Run every experiment and write one report."""

    PRESETS: ClassVar = {
        "quick": {"repeats": 1}, "full": {"repeats": 3}, "paper": {"repeats": 5, "sweeps": 5}, "cifar10": {},
    }  # fmt: skip

    out: Path = Path("runs/reproduce")
    repeats: cli.Count = 1
    """Number of seeds of every experiment on fair unlearning."""
    sweeps: cli.Count = 1
    """Number of seeds of the sweeps of robust models, each of which takes minutes."""
    side_by_side: cli.Count = 2
    """Number of parts that run at once, each in its own process, on a machine without accelerators."""
    hsls: Path | None = None
    """Your HSLS:09 public-use file or folder, to be added to the data sets."""
    cifar10: Path | None = None
    """Folder of CIFAR-10's binary version, for --preset cifar10; by default it is downloaded."""
    models: Path | None = None
    """Folder with undefended, autoencoder and denoiser.safetensors, from which --preset cifar10 goes on; by default it
    trains these first, for hours."""
    publish: Path | None = None
    """Folder to which all rows (compressed), figures and the report as a page are copied, too."""


class Run(NamedTuple):
    """One part of the job: an experiment, its declaration here, and its configuration."""

    experiment: Experiment
    part: Part
    config: Any


def runs(config: Config) -> dict[str, Run]:
    """All parts, by the name of their run folders, in order.

    Raises:
      ValueError: If --models names no folder of models, or the preset trains none of them.
    """
    if config.models and config.preset != "cifar10":
        raise ValueError(f"--models: only --preset cifar10 starts from models, --preset {config.preset} does not")
    for model in MODELS.values():
        if config.models and not (config.models / f"{model}.safetensors").is_file():
            raise ValueError(f"--models: {config.models} has no {model}.safetensors; leave --models out to train it")
    found: dict[str, Run] = {}
    every = map(registry.experiment, registry.NAMES)
    present = {part.name or e.name: (e, part) for e in every for part in e.parts if config.preset in part.values}
    present = {name: part for name, part in present.items() if not (config.models and name in MODELS)}
    for name, (experiment, part) in present.items():
        values: dict[str, Any] = dict(experiment.config.PRESETS.get(config.preset, {}))
        values |= {"preset": config.preset, "out": config.out / name, "mesh": config.mesh}
        values["seed"] = config.seed + part.other_seed * config.sweeps
        if part.seeds:
            values["repeats"] = getattr(config, part.seeds)
        values |= {field: config.out / run for field, run in part.reads.items() if run in present}
        made = {field: (run, file.format(config.seed)) for field, (run, file) in part.files.items()}
        values |= {field: config.out / run / file for field, (run, file) in made.items() if run in present}
        if config.models:
            values |= {f: config.models / f"{MODELS[run]}.safetensors" for f, (run, _) in made.items() if run in MODELS}
        values |= part.values[config.preset]
        fields = {field.name for field in dataclasses.fields(experiment.config)}
        if config.hsls is not None and "hsls" in fields:
            values["hsls"] = config.hsls
            if part.seeds:
                values["datasets"] = (*values.get("datasets", experiment.config.datasets), "hsls")
        if config.preset == "cifar10" and "folder" in fields and "trained" not in fields:
            values["folder"] = config.cifar10
        found[name] = Run(experiment, part, dataclasses.replace(experiment.config(), **values))
    return found


def plan(config: Config) -> list[str]:
    """All units of all parts; of a part that chooses among models which are trained before it, one line says so."""
    every, units = runs(config), []
    for name, (experiment, part, own) in every.items():
        training = every.get(source := part.reads.get("trained", ""))
        found = [f"those that the finished {source} leads to"]
        if training is None or experiment.rows_of is None:
            found = experiment.plan(own)
        elif type(own).units is measuring.MeasuringConfig.units:
            found = measuring.units_of(training.experiment.plan(training.config))
        units += [f"{name}/{store.unit_name(unit)}" for unit in found]
    return units


def main(config: Config) -> None:
    """Run what is not done yet, then write the report."""
    every, timing = runs(config), {}
    for name, seconds in done(config, every):
        timing[name] = seconds
        progress.say(f"reproduce: {name} finished, {len(timing)} of {len(every)} parts")
    if not mesh.leads():
        return
    sections, lines = sections_of(config, every)
    about = {"config": config, "environment": rows.environment(), "timing_s": timing}
    texts = TEXTS.get(config.preset, TEXTS["default"])
    path = report.write(config.out / "report.html", **texts, sections=sections, **about)
    if config.publish is not None:
        publish(config.publish, config.out, every, texts, sections)
    print(*lines, f"report: {path}", sep="\n")


def done(config: Config, every: dict[str, Run]) -> Iterator[tuple[str, float]]:
    """Run the parts, each when what it reads is there, and yield their names and durations as they end."""
    if config.side_by_side == 1 or config.mesh or config.coordinator or jax.default_backend() != "cpu":
        for name, (experiment, _, own) in every.items():
            yield name, run_part(experiment.name, own)
        return
    sources = {name for _, part, _ in every.values() for name in sources_of(part)}
    # What others read goes first, or one core would be idle at the end.
    waiting, running = {name: every[name] for name in sorted(every, key=lambda name: name not in sources)}, {}
    workers = {"mp_context": multiprocessing.get_context("spawn"), "initializer": share, "initargs": (config,)}
    with concurrent.futures.ProcessPoolExecutor(config.side_by_side, **workers) as pool:
        while waiting or running:
            busy = [*waiting, *running.values()]
            for name, (experiment, part, own) in list(waiting.items()):
                if len(running) < config.side_by_side and not sources_of(part) & set(busy):
                    running[pool.submit(run_part, experiment.name, own)] = name
                    del waiting[name]
            ended, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in ended:
                name = running.pop(future)
                if future.exception():
                    progress.say(f"reproduce: {name} failed; waiting for what runs beside it")
                yield name, future.result()


def sources_of(part: Part) -> set[str]:
    """The names of the parts that a part reads."""
    return {*part.reads.values(), *(run for run, _ in part.files.values())}


def share(config: Config) -> None:
    """Make a process run parts beside another: it prints lines, shares programs, and compiles in a single thread."""
    os.environ[progress.PLAIN] = "1"
    gc.set_threshold(100_000, 50, 100)  # Python would often look for garbage among the many small objects of tracing.
    # Another emitter takes half the time to compile a step of training, which runs as fast; see also tests/strict.py.
    other = config.preset in ("none", "quick") and metadata.version("jaxlib").startswith("0.10.")
    flags = ["--xla_cpu_parallel_codegen_split_count=1"] + ["--xla_cpu_use_fusion_emitters=false"] * other
    os.environ["XLA_FLAGS"] = " ".join([*flags, os.environ.get("XLA_FLAGS", "")])
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        programs = {"JAX_COMPILATION_CACHE_DIR": str(config.out / ".programs")}
        os.environ |= programs | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}


def run_part(name: str, config: Any) -> float:
    """Run an experiment, and return how many seconds it took."""
    experiment, begin = registry.experiment(name), time.perf_counter()
    compiling.share_context()
    jax.config.update("jax_enable_x64", experiment.x64)  # Certificates want float64, images float32.
    if experiment.optimised:
        jax.clear_caches()
    if "JAX_DISABLE_MOST_OPTIMIZATIONS" not in os.environ:  # XLA would optimise for longer than small sizes compute.
        hasty = config.preset == "quick" or (config.preset == "none" and not experiment.optimised)
        jax.config.update("jax_disable_most_optimizations", hasty)
    experiment.draw_all(config, experiment.measure(config))
    return time.perf_counter() - begin


def sections_of(config: Config, every: dict[str, Run]) -> tuple[list[report.Section], list[str]]:
    """The sections of the report, the summary first, and its lines as text."""
    folders = {name: config.out / name for name in every}
    sections, claims, lines = [], [], []
    for name, (experiment, part, own) in every.items():
        if part.name or experiment.section is None:
            continue
        results = Results(own.out, store.read_rows(own.out) if experiment.rows_of else [], folders, own)
        reads = [run for run in part.reads.values() if every.get(run) and every[run].experiment.rows_of]
        links = {f"{run}/rows.csv": f"{run}/rows.csv" for run in ([name] if experiment.rows_of else reads)}
        sections.append(report.Section(experiment.heading, experiment.section(results), links))
        for claim in experiment.claims(results) if experiment.claims else []:
            paper = PAPERS.get(name.partition("_")[0], name)
            claims.append({"paper": paper, "claim": claim.text, "verdict": claim.verdict, "number": claim.number})
            lines.append(claim.as_text(f"{paper}: "))
    if claims:
        sections.insert(0, report.Section("Summary: what the papers claim, and what these rows show", [
            "Every verdict is computed from the rows, by a rule that the claim or its section states. A claim is "
            "shown if it holds everywhere that it was measured, partly if it holds somewhere, and else not shown. A "
            "claim that is not shown at this scale is not refuted.",
            report.Table(claims, fold=False),
        ]))  # fmt: skip
        papers = {name.partition("_")[0] for name in every}
        terms = {term: text for paper in PAPERS if paper in papers for term, text in TEXTS["terms"][paper].items()}
        sections.insert(1, report.Section("Terms", [report.Terms(terms)]))
    return sections, lines


def publish(
    folder: Path, out: Path, every: dict[str, Run], texts: Mapping[str, str], sections: Sequence[report.Section]
) -> None:
    """Copy every part's rows, as reproducible ``.csv.gz``, and figures, and write the report as a page with these.

    Where an earlier part has another figure of the same name, the part's name goes in front.
    """
    names: dict[Path, Path] = {}
    for name in every:
        if (table := out / name / "rows.csv").exists():
            files.write_bytes(folder / f"{name}.csv.gz", gzip.compress(table.read_bytes(), mtime=0))
        if values := sorted((out / name / "values").glob("*.npz")):
            gather(values, folder / f"{name}_values.npz")
        for figure in sorted((out / name).glob("*.png")):
            content, target = figure.read_bytes(), folder / figure.name
            if target in names.values() and target.read_bytes() != content:
                target = folder / f"{name}_{figure.name}"
            names[figure] = target
            files.write_bytes(target, content)

    def moved(block: report.Block) -> report.Block:
        return dataclasses.replace(block, path=names[block.path]) if isinstance(block, report.Figure) else block

    page = []
    for section in sections:
        tables = [f"{Path(link).parent}.csv.gz" for link in section.links]
        blocks = [moved(block) for block in section.blocks]
        page.append(dataclasses.replace(section, blocks=blocks, links=dict(zip(tables, tables, strict=True))))
    report.write_markdown(folder / "README.md", **texts, sections=page)


def gather(paths: Sequence[Path], target: Path) -> None:
    """Write one npz of several: arrays are named UNIT/COLUMN."""
    every = {f"{path.stem}/{name}": array for path in paths for name, array in measuring.load_arrays(path).items()}
    measuring.save_arrays(target, every)


if __name__ == "__main__":
    sys.exit(cli.run(main, Config, plan=plan))
