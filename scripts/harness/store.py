"""Run folders: rows written atomically, one file a unit of work, which resume after a kill at any moment.

A run folder holds ``config.json`` (the configuration, and where and when the run began), ``units/`` (one file for each
finished unit of work, with its rows), ``rows.csv`` (the rows so far, to look at while the run goes on), and, once it is
finished, ``rows.jsonl`` (all rows). A unit is finished when its file has its name: a kill before that leaves a
temporary file, which the next run removes, and the unit is done again; a kill after that leaves the unit done.

A unit is a string, or a mapping of scalars such as ``{"dataset": "adult", "seed": 0}``, whose entries also become
columns of its rows. Rows carry what was measured, then ``seed``, ``unit``, ``wall_s`` (seconds that the unit took),
``config.*`` and ``env.*`` (see `rows.environment`).
"""

import collections
import contextlib
import dataclasses
import datetime
import fcntl
import hashlib
import math
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from fmu_jax.deletion import files
from scripts.harness import mesh, progress, rows
from scripts.harness.lazy import jax

Unit = TypeVar("Unit", bound=str | Mapping[str, Any])
RUN_FIELDS = ("out", "preset", "dry_run", "traceback", "mesh", "coordinator", "processes", "process")
"""Fields of a configuration that say where and how to run, not what: they may differ when a run resumes."""


class RunError(ValueError):
    """A run folder cannot be used: it is another run's, in use, or damaged. The message says which and what to do."""


@dataclasses.dataclass
class Run:
    """An open run folder; see `open_run`."""

    folder: Path
    config: rows.Row
    environment: rows.Row
    dropped: Sequence[str] = ()

    def done(self, unit: str | Mapping[str, Any]) -> bool:
        """Whether a unit of work is finished, by this process or by an earlier one."""
        return self._path(unit_name(unit)).exists()

    def do(
        self,
        units: Sequence[Unit],
        rows_of: Callable[[Unit], Sequence[Mapping[str, Any]]],
        *,
        then: Callable[[Unit], Any] = lambda unit: None,
    ) -> None:
        """Do the units that are not finished, with a progress bar; several at once on a mesh that has several slices.

        Raises:
          RunError: If two units have the same name.
          ValueError: If a column is reserved, or a value is no scalar.
        """
        for name, count in collections.Counter(map(unit_name, units)).items():
            if count > 1:
                raise RunError(f"{count} units of work are called {name!r}; each needs a name of its own")
        finished = mesh.agreed([self.done(unit) for unit in units])
        left = [unit for unit, is_done in zip(units, finished, strict=True) if not is_done]

        def work(unit: Unit) -> None:
            began = time.perf_counter()
            measured = rows_of(unit)
            if mesh.leads():
                self.record(unit, measured, wall_s=time.perf_counter() - began)
                then(unit)

        done = mesh.each(left, work)
        shown = -math.inf
        for _ in progress.track(done, total=len(units), finished=int(finished.sum()), label=self.folder.name):
            if jax.process_index() == 0 and time.perf_counter() - shown > progress.EVERY_S:
                files.write_text(self.folder / "rows.csv", rows.to_csv(self.all_rows()))
                shown = time.perf_counter()

    def record(self, unit: str | Mapping[str, Any], measured: Sequence[Mapping[str, Any]], *, wall_s: float) -> None:
        """Finish a unit of work: write its rows, atomically.

        Raises:
          RunError: If the unit is finished already.
          ValueError: If a column is reserved, or a value is no scalar.
        """
        name = unit_name(unit)
        if self.done(unit):
            raise RunError(f"unit {name!r} is finished already, in {self._path(name)}; its rows stay as they are")
        fixed = dict(unit) if isinstance(unit, Mapping) else {}
        shared = {f"config.{key}": value for key, value in self.config.items()}
        shared |= {f"env.{key}": value for key, value in self.environment.items()}
        content = {"unit": name, "rows": [self._row(fixed | dict(row), name, wall_s, shared) for row in measured]}
        files.write_text(self._path(name), rows.to_json(content))

    def all_rows(self) -> list[rows.Row]:
        """All rows of the finished units, ordered by unit name (numbers in a name count as numbers).

        Raises:
          RunError: If a unit's file is damaged; the message names it.
        """
        units = [self._read(path) for path in (self.folder / "units").glob("[!.]*.json")]
        units.sort(key=lambda unit: _natural(unit["unit"]))
        return [row for unit in units for row in unit["rows"]]

    def _path(self, name: str) -> Path:
        slug = re.sub(r"[^A-Za-z0-9=.,-]+", "_", name).strip("._")[:80]
        return self.folder / "units" / f"{slug}-{hashlib.sha256(name.encode()).hexdigest()[:12]}.json"

    def _row(self, measured: Mapping[str, Any], name: str, wall_s: float, shared: rows.Row) -> rows.Row:
        for column in measured:
            if column in ("unit", "wall_s") or column.startswith(("config.", "env.")):
                raise ValueError(f"unit {name!r}: the column {column!r} is the store's own; use another name")
        row = {column: rows.plain(value, f"unit {name!r}, column {column!r}") for column, value in measured.items()}
        row.setdefault("seed", self.config.get("seed"))
        return {**row, "unit": name, "wall_s": round(wall_s, 6), **shared}

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            content = rows.from_json(path.read_text(encoding="utf-8"))
            if self._path(content["unit"]) != path or not all(isinstance(row, dict) for row in content["rows"]):
                raise KeyError("unit")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{path} is damaged; delete it, and the unit is done again") from error
        return content


@contextlib.contextmanager
def open_run(
    out: Path, config: Any, *, inputs: Mapping[str, Any] | None = None, environment: Mapping[str, Any] | None = None
) -> Iterator[Run]:
    """Open a run folder: a new one, or the same run's to resume it. One run at a time.

    ``inputs`` says what the run is besides its configuration, such as the experiment and digests of what it reads.
    A configuration's ``DROPPED`` names what earlier versions stored beside it and no result depends on.
    On leaving without an error the rows of all finished units are written to ``rows.jsonl`` and ``rows.csv``. The
    processes of one run (`mesh.start`) open the folder together; all must see it, and process 0 looks after it.

    Raises:
      RunError: If the folder holds another run or other files, another process has it open, or it is damaged.
        Nothing in it is changed then.
    """
    identity = rows.flatten(inputs or {}) | rows.flatten(config, without=RUN_FIELDS)
    environment = dict(rows.environment() if environment is None else environment)
    run = Run(out, identity, environment, getattr(config, "DROPPED", ()))
    with _claimed(run) if jax.process_index() == 0 else contextlib.nullcontext():
        mesh.wait(f"{out} is open")
        yield run
        mesh.wait(f"the units of {out} are done")
    mesh.wait(f"{out} is closed")


@contextlib.contextmanager
def _claimed(run: Run) -> Iterator[None]:
    """Hold a run folder while units are done, and write its tables at the end."""
    out = run.folder
    if out.is_file():
        raise RunError(f"{out} is a file; choose a folder with --out")
    names = sorted(path.name for path in out.glob("*"))
    foreign = [name for name in names if name not in ("units", ".lock") and not name.startswith(".tmp-")]
    if foreign and "config.json" not in names:
        raise RunError(f"{out} holds no run, but other files ({', '.join(foreign[:3])}); choose another --out")
    (out / "units").mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"{out} is in use by another process; wait for it, or choose another --out") from None
        _claim(run)
        files.remove_leftovers(out)
        files.remove_leftovers(out / "units")
        run.all_rows()  # Damage is said before hours of work, not after.
        yield
        table = run.all_rows()
        files.write_text(out / "rows.jsonl", rows.to_jsonl(table))
        files.write_text(out / "rows.csv", rows.to_csv(table))


def read_rows(folder: Path) -> list[rows.Row]:
    """Read all rows of a finished run, or of a file with published ones (`rows.read_published`).

    Raises:
      FileNotFoundError: If the run is not finished, or there is none.
      ValueError: If the file is damaged.
    """
    if folder.is_file():
        return rows.read_published(folder)
    path = folder / "rows.jsonl"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: there is no finished run in {folder}")
    try:
        table = rows.from_jsonl(path.read_text(encoding="utf-8"))
        if not all(isinstance(row, dict) for row in table):
            raise ValueError("a line is no row")
    except ValueError as error:
        raise RunError(f"{path} is damaged ({error}); repeat the run's command, which writes it anew") from error
    return table


def unit_name(unit: str | Mapping[str, Any]) -> str:
    """The name of a unit of work.

    >>> unit_name({"dataset": "adult", "seed": 0})
    'dataset=adult,seed=0'
    """
    if isinstance(unit, str):
        return unit
    return ",".join(f"{key}={rows.plain(value, key)}" for key, value in unit.items())


def _claim(run: Run) -> None:
    """Write ``config.json`` into a new folder, or check that the folder's is the same run's."""
    path = run.folder / "config.json"
    if not path.exists():
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        content = {"config": run.config, "environment": run.environment, "started": started}
        files.write_text(path, rows.to_json(content, indent=2) + "\n")
        return
    try:
        content = rows.from_json(path.read_text(encoding="utf-8"))
        there = [dict(content[part]) for part in ("config", "environment")]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is damaged; choose another --out") from error
    there[0] = {name: value for name, value in there[0].items() if name not in run.dropped}
    differing, moved = map(_differences, there, (run.config, run.environment))
    if differing:
        raise RunError(
            f"{run.folder} holds a run of another configuration ({'; '.join(differing)}); "
            "choose another --out, or the same configuration to resume"
        )
    if moved and any((run.folder / "units").iterdir()):
        print(f"note: resuming {run.folder}, begun elsewhere ({'; '.join(moved)}); rows say which", file=sys.stderr)


def _differences(there: rows.Row, here: rows.Row) -> list[str]:
    names = [name for name in dict.fromkeys([*there, *here]) if f"{name}_sha256" not in here]  # Files may move.
    was, now = ({name: rows.to_json(side.get(name)) for name in names} for side in (there, here))
    return [f"{name}: {was[name]} there, {now[name]} here" for name in names if was[name] != now[name]]


def _natural(name: str) -> list[tuple[int, float, str]]:
    parts = re.split(r"(\d+(?:\.\d+)?)", name)
    return [(0, float(part), "") if k % 2 else (1, 0.0, part) for k, part in enumerate(parts)]
