"""Typed command lines: a frozen dataclass is the interface of a script.

Fields become flags, their docstrings the help, their annotations the allowed values::

    @dataclass(frozen=True)
    class Config(cli.Common):
        \"\"\"Remove rows, and see what is left of fairness.\"\"\"

        PRESETS: ClassVar = {"quick": {"shares": (0.05,)}}

        shares: tuple[cli.Share, ...] = (0.01, 0.05)
        \"\"\"Shares of the training rows to remove.\"\"\"

A program of several commands gives each a configuration of its own, derived from `Base`, and ends in `run_command`.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import tyro

from fmu_jax.deletion.cli import TYRO, Base, check, checked, refuse, run_command, run_guarded
from fmu_jax.deletion.ranges import Count, NonNegative, Positive, Probability, Range, Seed, Share, number
from scripts.harness import mesh, rows, store

__all__ = [
    "Base", "Common", "Count", "NonNegative", "Positive", "Probability", "Range", "Repeated", "Seed", "Share", "check",
    "number", "parse", "run", "run_command",
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Common(Base):
    """Flags that every script has; a script's Config derives from it."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Other defaults by preset name; flags that are given win."""
    DROPPED: ClassVar[tuple[str, ...]] = ()
    """Flags that earlier versions had and that changed no result: a run that was given them is the same run."""

    mesh: str = dataclasses.field(default="", kw_only=True)
    """Devices: data=4,sweep=2 divides rows among 4 devices and runs 2 units side by side; empty is one device."""
    preset: Literal["none", "quick", "full", "paper", "cifar10"] = "none"
    """Other default values, if the script has them: quick (a minute or less), full (twice the default or more), paper
    (the paper's scale), cifar10 (that data set at laptop scale). Flags that you give override them."""
    seed: Seed = 0
    """Seed of all randomness in the run."""
    out: Path = Path("runs/unnamed")
    """Run folder, by default named after the experiment. The same configuration resumes in it; another is refused."""
    dry_run: bool = False
    """Print the configuration and its units of work, and write nothing."""
    coordinator: str = ""
    """Address HOST:PORT of process 0, if there are several; auto asks Slurm, the TPU slice, Kubernetes or Open MPI."""
    processes: Count | None = None
    """Number of processes; not needed with --coordinator auto."""
    process: Seed | None = None
    """Number of this process, counted from 0; not needed with --coordinator auto."""


@dataclasses.dataclass(frozen=True)
class Repeated(Common):
    """Flags of an experiment that does its units of work with several seeds."""

    AXES: ClassVar[Mapping[str, str | tuple]] = {}
    """What a unit of work is: columns by the flag whose values they take, or by these values."""

    repeats: Count = 1
    """Number of seeds, counted from --seed; each seed draws everything random anew."""

    def units(self) -> list[dict[str, Any]]:
        """One unit of work for each combination of the axes' values and each seed."""
        axes = [getattr(self, values) if isinstance(values, str) else values for values in self.AXES.values()]
        seeds = range(self.seed, self.seed + self.repeats)
        return [dict(zip((*self.AXES, "seed"), unit, strict=True)) for unit in itertools.product(*axes, seeds)]


ConfigT = TypeVar("ConfigT", bound=Common)


def parse(config_type: type[ConfigT], argv: Sequence[str] | None = None, **other: Any) -> ConfigT:
    """Read a command line into a configuration; ``other`` are defaults in place of its own.

    Raises:
      SystemExit: With status 2 and a message on standard error if the words are no valid command line, or with
        status 0 after ``--help``.

    >>> parse(Common, ["--seed", "7"]).seed
    7
    """
    config = tyro.cli(config_type, args=argv, default=config_type(**other), config=TYRO)
    if config.preset != "none":
        if config.preset not in config_type.PRESETS:
            known = ", ".join(["none", *config_type.PRESETS])
            refuse(f"--preset: this script has no preset {config.preset!r}, only {known}")
        changed = {**other, **config_type.PRESETS[config.preset], "preset": config.preset}
        config = tyro.cli(config_type, args=argv, default=config_type(**changed), config=TYRO)
    return checked(config)


def run(
    main: Callable[[ConfigT], Any],
    config_type: type[ConfigT],
    *,
    plan: Callable[[ConfigT], Iterable[str | Mapping[str, Any]]] | None = None,
    argv: Sequence[str] | None = None,
    **other: Any,
) -> int:
    """Run a script: parse, then plan or do, and turn a user's errors into one line.

    Raises:
      SystemExit: As `parse`.
    """

    def work(config: ConfigT) -> None:
        if config.mesh:
            mesh.parse(config.mesh)
        if config.dry_run:
            units = [store.unit_name(unit) for unit in plan(config)] if plan else []
            print("configuration", *(f"{name} = {value}" for name, value in rows.flatten(config).items()), sep="\n  ")
            print(f"units of work: {len(units)}", *units, sep="\n  ")
            return
        if config.coordinator:
            mesh.start(config.coordinator, config.processes, config.process)
        with mesh.session(config.mesh):
            main(config)

    config = parse(config_type, argv, **other)
    return mesh.leave(run_guarded(work, config, interrupted="interrupted; the same command resumes"))
