"""Memory of a chip against rows: what XLA's compilers say that a fit, a removal, its region and certificate take.

    python -m benchmarks.memory           # compiles what is missing and draws; 64 columns
    python -m benchmarks.memory --draw    # only draws, from the rows that are there

Needs the extra ``aot`` to compile, and no machine of those that it compiles for (`targets`).
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import compiled, kernels, kernels_fmu, targets
from fmu_jax import sharding
from fmu_jax.deletion import files
from scripts.harness import cli, plot, rows
from scripts.harness.looks import BLACK, BLUE, GREEN, GREY, ORANGE, VERMILION, Look

LOOKS = {
    "fit": Look("fit", BLUE, "^"),
    "remove fair_newton": Look("remove, fair Newton", VERMILION, "o"),
    "retrained_region": Look("region of the retrained model", GREEN, "D"),
    "certify": Look("certify", ORANGE, "X"),
}
COLUMNS = kernels_fmu.COLUMNS
#: Four bytes for each column, the label, the group and the weight.
GB_A_ROW = 4e-9 * (COLUMNS + 3)


@dataclass(frozen=True)
class Config(cli.Common):
    """Compile for many numbers of rows."""

    out: Path = Path("benchmarks/results")
    targets: tuple[str, ...] = ("1 x H200", "v5e-16")
    """Which machines."""
    rows: tuple[int, ...] = (1_000_000, 10_000_000, 30_000_000, 100_000_000)
    """How many rows."""
    draw: bool = False
    """Compile nothing."""


def main(config: Config) -> None:
    """Compiles, writes each row as it ends, and draws all."""
    path = config.out / "memory.json"
    table = rows.from_json(path.read_text(encoding="utf-8")) if path.exists() else []
    for target in () if config.draw else config.targets:
        for n in config.rows:
            for name in LOOKS:
                if any((row["target"], row["rows"], row["kernel"]) == (target, n, name) for row in table):
                    continue
                table.append({"kernel": name, "target": target, "rows": n} | case(name, target, n))
                files.write_text(path, rows.to_json(table, indent=1) + "\n")
                print(table[-1], flush=True)
    draw(table, path.with_suffix(".png"))


def case(name: str, target: str, n: int) -> dict[str, Any]:
    """Memory of one chip for a kernel of so many rows, in 10^9 bytes."""
    chips = targets.TARGETS[target].chips
    padded = len(sharding.pad_rows(np.broadcast_to(False, (n,)), chips))
    row = compiled.program(kernels.Kernel(name, f"{n} x {COLUMNS}", kernels_fmu.BY_ROWS[name](padded)), target)
    told = ("compiles", "error", "argument_gb", "temporary_gb", "output_gb", "chip_gb", "compile_s")
    return {"padded_rows": padded, "code": rows.environment()["code"]} | {key: row[key] for key in told if key in row}


def draw(table: list[dict[str, Any]], path: Path) -> None:
    """For each machine arguments and temporaries of each kernel against rows: in GB, and over the rows' own memory."""
    shown = [target for target in targets.TARGETS if any(row["target"] == target for row in table)]
    titles = [*(f"{target}: GB of a chip" for target in shown), *(f"{target}: over the rows' own" for target in shown)]
    with plot.panels(path, titles, len(shown), legend=3, height=2.4) as axes:
        for above, below, target in zip(axes[: len(shown)], axes[len(shown) :], shown, strict=True):
            capacity, chips = targets.TARGETS[target].gigabytes, targets.TARGETS[target].chips
            for name, look in LOOKS.items():
                told = {row["rows"]: row["argument_gb"] + row["temporary_gb"] for row in table
                        if (row["target"], row["kernel"]) == (target, name) and row["compiles"]}  # fmt: skip
                ends = sorted(told)
                plot.line(above, ends, [told[n] for n in ends], look)
                plot.line(below, ends, [told[n] / (GB_A_ROW * n / chips) for n in ends], look)
            reach = [min(row["rows"] for row in table), capacity * chips / GB_A_ROW]
            above.plot(reach, [GB_A_ROW * n / chips for n in reach], color=GREY, ls=":", label="the rows themselves")
            above.axhline(capacity, color=BLACK, linestyle="--", label="memory of the chip")
            above.set(xscale="log", yscale="log")
            below.axhline(compiled.MOST, color=GREY, linestyle=(0, (3, 1)), label="limit of the tests at 10^8")
            below.set_ylim(bottom=0.9)
            below.set(xscale="log", xlabel=f"rows of {COLUMNS} columns", xlim=above.get_xlim())


if __name__ == "__main__":
    sys.exit(cli.run(main, Config))
