"""Compiles every kernel for the machines that users have, by XLA's own compilers and without these machines.

    python -m benchmarks.compiled                          # all that is missing; resumes, takes hours on two cores
    python -m benchmarks.compiled --kernels certify fit --targets "1 x H200" --again
    python -m benchmarks.compiled --fill                   # compiles nothing: formulas into rows that lack them

Needs the extra ``aot``. For each kernel (`kernels_fmu`, `kernels_pags`) and target (`targets`) one row, written when it
ends: whether it compiles, or the compiler's reason; memory of one chip for arguments, temporaries and outputs, beside
what the chip has; collectives and the bytes that they hand over; arithmetic and traffic as XLA counts them, where it
does, not for GPUs, and products and convolutions of the program itself; what the target may lack; the array that tiles
widen most. Not known from this: what the numbers come out as there, and how long it takes.
"""

import json
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from benchmarks import formulas, hlo, kernels, kernels_fmu, kernels_pags, targets
from fmu_jax.deletion import files
from scripts.harness import cli, rows

KERNELS = {kernel.name: kernel for kernel in (*kernels_fmu.KERNELS, *kernels_pags.KERNELS)}
#: How many bytes more than its rows a chip may hold at 10^8 rows: the packages work in blocks.
MOST = 1.5


@dataclass(frozen=True)
class Config(cli.Common):
    """Compile for machines that are not here."""

    PRESETS: ClassVar = {"quick": {"kernels": ("fit", "lpips"), "targets": ("v5e-16", "1 x H200")}}

    out: Path = Path("benchmarks/results")
    kernels: tuple[str, ...] = tuple(KERNELS)
    """Which kernels."""
    targets: tuple[str, ...] = tuple(targets.TARGETS)
    """Which machines."""
    again: bool = False
    """Compile anew what the file has."""
    fill: bool = False
    """Compile nothing; set what each kernel's formula needs beside what was counted, in all rows of the file."""


def plan(config: Config) -> list[str]:
    """The kernels on the targets, checked."""
    for flag, given, known in (("kernels", config.kernels, KERNELS), ("targets", config.targets, targets.TARGETS)):
        if unknown := [name for name in given if name not in known]:
            raise ValueError(f"--{flag}: {unknown[0]!r} is none of {', '.join(known)}")
    return [f"{kernel} on {target}" for kernel in config.kernels for target in config.targets]


def main(config: Config) -> None:
    """Compiles what is missing, the targets in their order, and writes each row as it ends.

    A row says that it did not end until it has: where a compiler takes the process with it, the next run goes on.
    """
    plan(config)
    path = config.out / "compiled.jsonl"
    if config.fill:
        files.write_text(path, "".join(json.dumps(formulas.filled(row)) + "\n" for row in read(path)))
    for target in () if config.fill else config.targets:
        for name in config.kernels:
            if not config.again and (name, target) in [(row["kernel"], row["target"]) for row in read(path)]:
                continue
            begun = {"kernel": name, "size": KERNELS[name].size, "target": target, "code": rows.environment()["code"]}
            write(path, begun | {"compiles": False, "error": "the compiler did not end"})
            row = case(name, target)
            write(path, begun | row)
            outcome = row.get("error") or f"{row['temporary_gb']:.3g} GB of temporaries"
            print(f"{name} on {target}: {row['compile_s']:.0f} s, {outcome}"[:200], flush=True)
    print(table(read(path)))


def table(found: list[dict[str, Any]]) -> str:
    """The rows in Markdown, a line for each kernel: GB of a chip for arguments, temporaries; collectives; seconds."""
    at = {(row["kernel"], row["target"]): row for row in found}
    known = [target for target in targets.TARGETS if any(target == row["target"] for row in found)]
    lines = ["| kernel | size | arithmetic | " + " | ".join(known) + " |", "|---" * (3 + len(known)) + "|"]
    for name, kernel in KERNELS.items():
        cells = [at.get((name, target)) for target in known]
        if any(cells):
            counted = [cell["of_formula"] for cell in cells if cell and "of_formula" in cell]
            share = f"{counted[-1]:.2f}" if counted else ""
            lines.append(f"| {name} | {kernel.size} | {share} | " + " | ".join(map(_cell, cells)) + " |")
    return "\n".join(lines)


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    if not row["compiles"]:
        return "no: " + row["error"][:60].replace("|", " ")
    told = f"; {row['collectives']} of {row['collective_mb']:.3g} MB" if row["collectives"] else ""
    return f"{row['argument_gb']:.3g} + {row['temporary_gb']:.3g}{told}; {row['compile_s']:.0f} s"


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of a file, none if there is none."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def write(path: Path, row: dict[str, Any]) -> None:
    """Adds a row, in place of the one of the same kernel and target if there is one."""
    others = [old for old in read(path) if (old["kernel"], old["target"]) != (row["kernel"], row["target"])]
    files.write_text(path, "".join(json.dumps(each) + "\n" for each in [*others, row]))


def case(name: str, target: str) -> dict[str, Any]:
    """What one kernel's program is on one target."""
    return program(KERNELS[name], target)


def program(kernel: kernels.Kernel, target: str) -> dict[str, Any]:
    """The same of any kernel."""
    chips = targets.TARGETS[target].chips
    begin, row = time.perf_counter(), {}
    try:
        place = kernels.Place(targets.mesh(target))
        traced = kernels.traced(kernel, place)
        arithmetic = hlo.flops(traced.jaxpr)
        row = {"trace_s": time.perf_counter() - begin, "program_gflop": arithmetic / 1e9}
        row |= formulas.share(kernel.name, arithmetic)
        begin = time.perf_counter()
        compiled = traced.lower().compile()
    except Exception as error:  # Whatever a compiler says is the result.
        message = " ".join(str(error).split())[:400]
        return row | {"compiles": False, "compile_s": time.perf_counter() - begin, "error": message}
    row |= {"compiles": True, "compile_s": time.perf_counter() - begin, "chip_gb": targets.TARGETS[target].gigabytes}
    logical = sum(map(_bytes_of_chip, jax.tree.leaves(kernel.make(place)[1])))
    return row | described(compiled, chips, arithmetic, logical)


def described(compiled: Any, chips: int, arithmetic: float, logical: float) -> dict[str, Any]:
    """Memory, collectives and the rest of a compiled program, of one chip whose arguments have so many bytes."""
    text, memory, costs = compiled.as_text(), compiled.memory_analysis(), compiled.cost_analysis() or {}
    count, handed = hlo.collectives(text)
    taken, temporary = memory.argument_size_in_bytes, memory.temp_size_in_bytes
    row = {
        "argument_gb": taken / 1e9,
        "temporary_gb": temporary / 1e9,
        "output_gb": (memory.output_size_in_bytes - memory.alias_size_in_bytes) / 1e9,
        "of_arguments": (taken + temporary) / max(taken, 1),
        "padding_of_arguments": taken / max(logical, 1),
        "collectives": count,
        "collective_mb": handed / 1e6,
        "program_gflop_a_chip": arithmetic / chips / 1e9,
    }
    if costs:
        row |= {"xla_gflop": costs.get("flops", 0) / 1e9, "xla_traffic_gb": costs.get("bytes accessed", 0) / 1e9}
    return row | hlo.refused(text) | hlo.worst_padding(text)


def _bytes_of_chip(leaf: Any) -> float:
    """Bytes of a chip's part of an argument, without any layout. A PRNG key is two words."""
    if not hasattr(leaf, "sharding"):
        return 4.0  # A Python number.
    width = 8 if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf.dtype.itemsize
    return float(math.prod(leaf.sharding.shard_shape(leaf.shape)) * width)


if __name__ == "__main__":
    sys.exit(cli.run(main, Config, plan=plan))
