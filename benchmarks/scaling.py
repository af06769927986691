"""What devices tell each other when rows lie on several, counted in the programs of this machine's compiler.

    python -m benchmarks.scaling

Speed on fake devices means nothing, so nothing is timed here. Counted, in the compiled program of each device: the
collective operations and the bytes that they hand over, at two numbers of rows, and XLA's own estimate of arithmetic
and memory traffic. `benchmarks.compiled` counts the same in the programs of TPUs and GPUs. `fmu_jax` programs are in
float32; the training step is ResNet-18 on 32 x 32 x 3 images.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from benchmarks import measure
from scripts.harness import cli, mesh, placement
from scripts.harness.lazy import fmu_jax, jax, jnp, pags_jax

COLUMNS = ("program", "devices", "rows", "collectives", "kilobytes", "flops_per_row", "bytes_per_row")
COLLECTIVE = re.compile(r"= (.*?) (?:all-reduce|all-gather|collective-permute|all-to-all|reduce-scatter)(?:-start)?\(")
WIDTH = {"pred": 1, "u8": 1, "s32": 4, "u32": 4, "f32": 4, "f64": 8, "bf16": 2}


@dataclass(frozen=True)
class Config(cli.Common):
    """Count what devices tell each other."""

    PRESETS: ClassVar = {"quick": {"devices": (2,), "programs": ("fair_newton",)}}

    out: Path = Path("benchmarks/results")
    programs: tuple[str, ...] = ("fit_step", "fair_newton", "region", "certificate", "training_step")
    """What to count."""
    devices: tuple[cli.Count, ...] = (2, 8, 16)
    """Numbers of fake devices."""
    columns: cli.Count = 64
    """Columns of a table, the bias among them."""


def plan(config: Config) -> list[str]:
    """The programs, checked."""
    if unknown := [name for name in config.programs if name not in PROGRAMS]:
        raise ValueError(f"--programs: {unknown[0]!r} is none of {', '.join(PROGRAMS)}")
    return [f"{name} on {devices}" for name in config.programs for devices in config.devices]


def main(config: Config) -> None:
    """Counts in processes of their own, each with so many fake devices."""
    plan(config)
    table = []
    before = os.environ.get("XLA_FLAGS", "")
    for devices in config.devices:
        os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
        for name in config.programs:
            table += measure.in_own_process("benchmarks.scaling", ["--case", name, str(devices), str(config.columns)])
            print(f"{name} on {devices}: done", file=sys.stderr)
    os.environ["XLA_FLAGS"] = before
    command = measure.command("benchmarks.scaling")
    measure.publish("scaling", table, COLUMNS, command=command, out=config.out)


def counted(name: str, devices: int, columns: int) -> list[dict[str, Any]]:
    """One row for each of two numbers of rows; arithmetic and traffic a row are their difference."""
    sizes = (16 * devices, 32 * devices) if name == "training_step" else (960 * 32, 960 * 64)
    with mesh.session(f"data={devices}"):
        programs = [PROGRAMS[name](size, columns).compile() for size in sizes]
    costs = [program.cost_analysis() for program in programs]
    more = (sizes[1] - sizes[0]) / devices  # Rows of one device.
    table = []
    for program, size in zip(programs, sizes, strict=True):
        told = [handed(match[1]) for match in COLLECTIVE.finditer(program.as_text())]
        row = {"program": name, "devices": devices, "rows": size, "columns": columns, "collectives": len(told)}
        row |= {"kilobytes": sum(told) / 1e3, "largest_kilobytes": max(told) / 1e3}
        row |= {"flops_per_row": (costs[1]["flops"] - costs[0]["flops"]) / more}
        table.append(row | {"bytes_per_row": (costs[1]["bytes accessed"] - costs[0]["bytes accessed"]) / more})
    return table


def handed(shapes: str) -> int:
    """Bytes of the arrays that a collective hands over, from its type in a program's text.

    >>> handed("(f32[64,64]{1,0}, f32[64]{0}, s32[])")
    16644
    """
    arrays = re.findall(r"([a-z]+\d*)\[([\d,]*)\]", shapes)
    return sum(WIDTH[kind] * math.prod(int(k) for k in sizes.split(",") if k) for kind, sizes in arrays)


def _table(rows: int, columns: int) -> tuple[Any, ...]:
    """An objective, parameters, rows on all devices, and a perturbation."""
    key = jax.random.key(0)
    x = jax.random.normal(key, (rows, columns)) / jnp.sqrt(columns)
    y, group = (x[:, k] > 0 for k in (0, 1))
    data = fmu_jax.Data(x, y.astype(jnp.int32), group.astype(jnp.int32), jnp.ones(rows))
    return fmu_jax.Objective(l2=1e-4, fairness=1.0), jnp.ones(columns), placement.rows(data), jnp.ones(columns)


def _removal(params: Any, data: Any) -> fmu_jax.Removal:
    nothing = jnp.zeros(data.y.shape, bool)
    zero = jnp.zeros((), jnp.int32)
    return fmu_jax.Removal(params, data, nothing, params, jnp.ones((), bool), jnp.zeros(()), zero)


def _fit_step(rows: int, columns: int) -> Any:
    objective, params, data, noise = _table(rows, columns)
    return fmu_jax.fitting.minimise.lower(objective, params, data, noise, 1e-5, 1, True)


def _fair_newton(rows: int, columns: int) -> Any:
    objective, params, data, noise = _table(rows, columns)
    return fmu_jax.removal.newton.fair_newton.lower(objective, params, data, data, noise=noise)


def _region(rows: int, columns: int) -> Any:
    objective, params, data, noise = _table(rows, columns)
    return fmu_jax.distances._region.lower(objective, _removal(params, data), noise)


def _certificate(rows: int, columns: int) -> Any:
    objective, params, data, noise = _table(rows, columns)
    removal = _removal(params, data)
    region = fmu_jax.distances._region(objective, removal, noise)
    return fmu_jax.certificates._certify.lower(objective, params, removal, region, 1.0, 1e-5, noise)


def _training_step(batch: int, columns: int) -> Any:
    del columns
    task = pags_jax.training.Task(
        pags_jax.models.create("resnet18", classes=10), pags_jax.losses.cross_entropy, batch_size=batch
    )
    x, y = jnp.zeros((batch, 32, 32, 3), jnp.uint8), jnp.zeros(batch, jnp.int32)
    state = pags_jax.training.init(task, x[:1], key=jax.random.key(0))
    hyper = pags_jax.training.Hyper(0.0, 0.1, pags_jax.training.milestones(4, 2))
    step = jax.jit(pags_jax.training.step, static_argnames="task")
    return step.lower(task, state, *placement.rows((x, y)), hyper)


PROGRAMS: dict[str, Callable[[int, int], Any]] = {
    "fit_step": _fit_step,
    "fair_newton": _fair_newton,
    "region": _region,
    "certificate": _certificate,
    "training_step": _training_step,
}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--case"]:
        name, *numbers = sys.argv[2:]
        print(json.dumps(counted(name, *map(int, numbers))))
    else:
        sys.exit(cli.run(main, Config, plan=plan))
