"""What an experiment is: a configuration, units of work, the rows of each, figures, and a section of the report.

An experiment is one file, which ends in its declaration::

    EXPERIMENT = Experiment("fmu_stream", Config, rows_of, draw=draw, heading="Requests", section=section)

    EXPERIMENT.run_as(__name__)

`scripts.registry` names all of them; `scripts.reproduce`, its report, its published rows and the tests go through it.
"""

import dataclasses
import functools
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from scripts.harness import cli, mesh, report, store
from scripts.harness.lazy import jax

Row = dict[str, Any]
PRESETS = ("none", "quick", "full", "paper", "cifar10")
"""Presets of `scripts.reproduce`; ``none`` is its default."""


class Claim(NamedTuple):
    """What a paper claims, and what the rows say.

    Attributes:
      text: The claim.
      holds: Whether it holds, for everything that it is about.
      number: The numbers that this is from.
    """

    text: str
    holds: Sequence[bool]
    number: str

    @property
    def verdict(self) -> Literal["shown", "partly", "not shown"]:
        """Shown if it holds everywhere, partly if it holds somewhere.

        >>> Claim("All swans are white.", [True, False], "1 of 2").verdict
        'partly'
        """
        return "shown" if self.holds and all(self.holds) else "partly" if any(self.holds) else "not shown"

    def as_text(self, paper: str = "") -> str:
        """The verdict, the claim and the numbers in a line, which a terminal gets in as many lines as it takes."""
        line = f"{self.verdict:9}  {paper}{self.text} {self.number}"
        width = shutil.get_terminal_size()[0] if sys.stdout.isatty() else len(line)
        return textwrap.fill(line, width, subsequent_indent=" " * 11)


@dataclasses.dataclass(frozen=True)
class Results:
    """A finished run as its section of a report reads it.

    Attributes:
      folder: The run folder.
      rows: Its rows.
      others: Run folders of the other parts of the report, by name.
      config: Its configuration, where the caller has it.
    """

    folder: Path
    rows: list[Row]
    others: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    config: Any = None

    def of(self, part: str) -> list[Row]:
        """Rows of another part; none if the report has no such part."""
        return store.read_rows(self.others[part]) if part in self.others else []

    def figures(self, pattern: str, alt: str, caption: str = "", *, part: str = "") -> list[report.Figure]:
        """The figures of this run, or of another part, whose file names match a pattern, in order of name."""
        folder = self.others.get(part) if part else self.folder
        return [report.Figure(path, alt, caption) for path in sorted(folder.glob(pattern))] if folder else []


class Part(NamedTuple):
    """A run of an experiment in `scripts.reproduce`.

    Attributes:
      values: What differs from the experiment's own preset of that name, by preset of reproduce. The part is left out
        of presets that are missing here.
      name: Name of its run folder; by default the experiment's.
      reads: For each field of the configuration that names a run, the name of the part that is meant; left out in
        presets which have no such part.
      files: The same for a file that a part writes: the part's name and the file's, where {} is the job's seed.
      seeds: The field of reproduce's configuration that says how many seeds to take: ``repeats`` or ``sweeps``. Empty
        for those that take as many as their own preset says.
      other_seed: By how many times the sweeps' seeds its own lies behind, as a run that must not be drawn as they are.
    """

    values: Mapping[str, Mapping[str, Any]]
    name: str = ""
    reads: Mapping[str, str] = {}
    files: Mapping[str, tuple[str, str]] = {}
    seeds: str = ""
    other_seed: int = 0


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One experiment.

    Attributes:
      name: Name of its rows and its default folder, such as ``fmu_audit`` for ``scripts/fmu/audit.py``.
      config: Its configuration, derived from `cli.Common`.
      rows_of: ``rows_of(config, **unit)`` does one and returns its rows; ``rows_of(config, ready, **unit)`` if there
        is a ``setup``. None if the experiment only draws.
      plan: Lists the units of work, without doing any; by default those of the configuration's axes.
      setup: ``setup(config)`` makes what all units need, before the run folder is touched.
      inputs: ``inputs(config)``: what else than the configuration says what the run is, such as digests of files.
      keep: ``keep(config, ready)`` writes what figures need of what ``setup`` made into the run folder.
      finished: ``finished(config, unit)`` is called when the rows of a unit are written.
      draw: ``draw(config, rows)`` draws the figures into ``config.out``.
      heading: Heading of its section of the report.
      section: ``section(results)``: text, tables and figures; the first table is also printed when a run ends.
      claims: ``claims(results)``: which claims of its paper the rows show.
      parts: Its runs in `scripts.reproduce`.
      x64: Whether it computes in float64.
      optimised: Whether reproduce's default, too, compiles it as users do: it computes for long, or measures how long.
    """

    name: str
    config: type[Any]
    rows_of: Callable[..., Sequence[Mapping[str, Any]]] | None = None
    plan: Callable[[Any], list[Any]] = lambda config: config.units()
    setup: Callable[[Any], Any] | None = None
    inputs: Callable[[Any], Mapping[str, Any]] = lambda config: {}
    keep: Callable[[Any, Any], Any] = lambda config, ready: None
    finished: Callable[[Any, Any], Any] = lambda config, unit: None
    draw: Callable[[Any, list[Row]], Any] | None = None
    heading: str = ""
    section: Callable[[Results], list[report.Block]] | None = None
    claims: Callable[[Results], list[Claim]] | None = None
    parts: tuple[Part, ...] = ()
    x64: bool = False
    optimised: bool = False

    def run(self, argv: Sequence[str] | None = None) -> int:
        """Run it as a script, by default into ``runs/NAME``; see `cli.run`."""
        return cli.run(self.main, self.config, plan=self.plan, argv=argv, out=Path("runs") / self.name)

    def run_as(self, module: str) -> None:
        """Run it, and end the program, if its file is the program."""
        if module == "__main__":
            sys.exit(self.run())

    def main(self, config: Any) -> None:
        """Do the units that are not done yet, draw the figures, and print where the results are.

        Raises:
          ValueError: The configuration asks for what cannot be done.
          OSError: A file cannot be read or written.
        """
        table = self.measure(config)
        self.draw_all(config, table)
        if mesh.leads():
            self.say_results(config, table)

    def draw_all(self, config: Any, table: list[Row]) -> None:
        """Draw the figures, in the process that writes files."""
        if self.draw and mesh.leads():
            self.draw(config, table)

    def measure(self, config: Any) -> list[Row]:
        """Do the units that are not done yet, and return the rows of all; none if there is nothing to measure."""
        if self.rows_of is None:
            return []
        if self.x64:
            jax.config.update("jax_enable_x64", True)
        units = self.plan(config)
        inputs = {"experiment": self.name, **self.inputs(config)}
        rows_of = functools.partial(self.rows_of, config)
        ready = None
        if self.setup and not all(map(store.Run(config.out, {}, {}).done, units)):
            ready = self.setup(config)
            rows_of = functools.partial(rows_of, ready)
        with store.open_run(config.out, config, inputs=inputs) as run:
            if ready is not None:
                self.keep(config, ready)
            run.do(units, lambda unit: rows_of(**unit), then=functools.partial(self.finished, config))
        return store.read_rows(config.out)

    def say_results(self, config: Any, table: list[Row]) -> None:
        """Print the section's first table, or what drawn runs show, and where rows and figures are."""
        blocks = self.section(Results(config.out, table)) if self.section and table else []
        for block in [block for block in blocks if isinstance(block, report.Table)][:1]:
            print(report.as_text(block))
        if self.rows_of is None and self.claims:
            runs = {part: getattr(config, field) for field, part in self.parts[0].reads.items()}
            results = Results(config.out, [], {part: path for part, path in runs.items() if path}, config)
            for claim in self.claims(results):
                print(claim.as_text())
        names = [name for name in ("rows.csv", "rows.jsonl") if (config.out / name).exists()]
        names += [path.name for path in sorted(config.out.glob("*.png"))]
        print(f"results: {config.out} ({', '.join(names)})")
