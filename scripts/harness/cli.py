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
import functools
import itertools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import tyro

from fmu_jax.deletion.cli import TYRO, Base, check, checked, run_command, run_guarded
from fmu_jax.deletion.ranges import Count, NonNegative, Positive, Probability, Seed, Share
from scripts.harness import mesh, rows, store

__all__ = ["Base", "Count", "NonNegative", "Positive", "Probability", "Seed", "Share", "check", "run_command"]
SIZES = {
    "quick": "a minute or less", "full": "twice the default or more", "paper": "the paper's scale",
    "cifar10": "that data set at laptop scale",
}  # fmt: skip
"""What presets mean; a script may have some of them."""


@dataclasses.dataclass(frozen=True)
class Common(Base):
    """Flags that every script has; a script's Config derives from it."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Other defaults by preset name; flags that are given win."""
    DROPPED: ClassVar[tuple[str, ...]] = ()
    """Flags that earlier versions had and that changed no result: a run that was given them is the same run."""

    mesh: str = dataclasses.field(default="", kw_only=True)
    """Devices: data=4,sweep=2 divides rows among 4 devices and runs 2 units side by side; empty is one device."""
    preset: str = "none"
    """Other default values; a script offers those that it has."""
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

    def __init_subclass__(cls) -> None:
        """Let ``--preset`` offer what ``PRESETS`` has, and nothing else."""
        named = "; ".join(f"{name}: {SIZES[name]}" for name in cls.PRESETS)
        text = (
            f"Other default values ({named}). Flags that you give override them." if named else "This script has none."
        )
        cls.__annotations__["preset"] = Annotated[Literal[("none", *cls.PRESETS)], tyro.conf.arg(help=text)]


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
    read = functools.partial(tyro.cli, config_type, prog=program(config_type), args=argv, config=TYRO)
    config = read(default=config_type(**other))
    if config.preset != "none":
        changed = {**other, **config_type.PRESETS[config.preset], "preset": config.preset}
        config = read(default=config_type(**changed))
    return checked(config)


def program(config_type: type) -> str | None:
    """How the program of a configuration is called, for messages.

    >>> program(Common)
    'python -m scripts.harness.cli'
    """
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    module = (spec and spec.name) if config_type.__module__ == "__main__" else config_type.__module__
    return f"python -m {module}" if module else None


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
