"""How time and memory are measured: warm calls, compile time apart, medians, the peak of a process of its own."""

import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fmu_jax.deletion import files
from scripts.harness import report, rows
from scripts.harness.lazy import jax


def time_call(call: Callable[[], Any], *, repeats: int = 7) -> tuple[Any, dict[str, float]]:
    """Times a call that returns JAX arrays.

    Args:
      call: What to time; its result is waited for.
      repeats: Counted calls, after the first.

    Returns:
      The last result, and ``first_ms`` (compilation included), ``median_ms``, ``min_ms``, ``max_ms``, and ``cpu_ms``,
      the median of what all threads of this process took of the CPUs, which other jobs of a machine disturb less.
    """
    times, taken, result = [], [], None
    for _ in range(repeats + 1):
        begin, cpu = time.perf_counter(), time.process_time()
        result = jax.block_until_ready(call())
        times.append(1e3 * (time.perf_counter() - begin))
        taken.append(1e3 * (time.process_time() - cpu))
    warm, cpu_ms = sorted(times[1:]), sorted(taken[1:])[repeats // 2]
    timing = {"first_ms": times[0], "median_ms": warm[repeats // 2], "min_ms": warm[0], "max_ms": warm[-1]}
    timing["cpu_ms"] = cpu_ms
    return result, timing


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in 10^6 bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def in_own_process(module: str, arguments: Sequence[str]) -> list[dict[str, Any]]:
    """Runs ``python -m module arguments``, which prints rows as JSON on its last line, in a process of its own.

    Raises:
      RuntimeError: The process failed; its standard error is in the message.
    """
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{module} {' '.join(arguments)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def publish(
    name: str,
    table: Sequence[dict[str, Any]],
    columns: Sequence[str],
    *,
    command: str,
    out: Path,
    case: Sequence[str] = (),
) -> None:
    """Prints a table, and writes it as JSON with hardware, versions and command.

    Args:
      name: Name of the file, without ending.
      table: Rows.
      columns: What to print, in order.
      command: What made the rows.
      out: Folder of the JSON file.
      case: Columns that tell the cases apart. Given, rows that are in the file already, of other cases and from the
        same machine and versions, stay; each row says which command and code made it.
    """
    widths = {c: max(len(c), *(len(report.number(row.get(c))) for row in table)) for c in columns}
    print("  ".join(c.ljust(widths[c]) for c in columns))
    for row in table:
        print("  ".join(report.number(row.get(c)).ljust(widths[c]) for c in columns))
    path = out / f"{name}.json"
    content = {
        "command": command,
        "processor": _processor(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "environment": rows.environment(),
        "rows": list(table),
    }
    if case:
        made_by = {"command": command, "code": content["environment"]["code"]}
        content["rows"] = _others(path, content, case) + [row | made_by for row in table]
    files.write_text(path, rows.to_json(content, indent=1) + "\n")
    print(f"written: {path}")


def _others(path: Path, content: dict[str, Any], case: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of a file that are of other cases than the new ones, if they are of the same machine and versions."""
    if not path.exists():
        return []
    before = rows.from_json(path.read_text(encoding="utf-8"))

    def where(content):
        return [content["processor"], {name: value for name, value in content["environment"].items() if name != "code"}]

    if where(before) != where(content):
        return []
    replaced = [[row[name] for name in case] for row in content["rows"]]
    made_by = {"command": before["command"], "code": before["environment"]["code"]}
    return [made_by | row for row in before["rows"] if [row[name] for name in case] not in replaced]


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def command(module: str) -> str:
    """The command line of this process, as one would type it."""
    return " ".join(["python -m", module, *sys.argv[1:]])
