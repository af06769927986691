"""What `pags_training` and `pags_gradients` share: flags, cases, the device's peak, and the table.

Every side of a case (ours in each formulation, PyTorch in each layout) runs in a process of its own, one right after
the other: neither framework disturbs the other, and both meet the machine in the same state.
"""

import importlib.util
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure
from pags_jax import models
from scripts.harness import cli
from scripts.harness.compiling import compiler_options

CLASSES = 10
#: PyTorch's sides that do exactly our work: on contiguous images, and on images whose channels are last.
TORCH = ("torch", "torch_nhwc")
#: First and last columns of a table; the times of the sides are between them.
BEFORE = ("model", "work", "precision", "batch_size", "jax_images_per_s", "torch_images_per_s", "times_torch")
AFTER = ("compile_ms", "gflop_per_image", "peak_tflops", "jax_peak_share", "torch_peak_share")

SHAPES = {"lenet": (28, 28, 1), "resnet18": (32, 32, 3)}
_PRODUCTS = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": None}


@dataclass(frozen=True)
class Config(cli.Common):
    """Flags of both benchmarks."""

    out: Path = Path("benchmarks/results")
    models: tuple[Literal["lenet", "resnet18"], ...] = ("lenet", "resnet18")
    """LeNet on 28 x 28 x 1 images, ResNet-18 on 32 x 32 x 3 ones."""
    precisions: tuple[Literal["float32", "tf32", "bfloat16"], ...] = ("float32",)
    """What convolutions and products are computed in; parameters are float32. Only GPUs know tf32."""
    batch_size: cli.Count = 128
    """Images of a batch."""
    repeats: cli.Count = 5
    """Warm calls, of which the median counts."""
    peak_tflops: tuple[cli.Positive, ...] = ()
    """The device's peak in each precision, in 10^12 operations a second. By default what a large matrix product reaches
    in the same run."""
    check: bool = False
    """Measure no times, but how far PyTorch's results are from ours, from the same parameters and draws."""


class Case(NamedTuple):
    """What one process measures; ``work`` is a loss, or a target of input gradients."""

    model: str
    work: str
    precision: str
    batch_size: int
    seed: int
    repeats: int


#: Measures a case in the process that it is called in; an empty mapping where it would repeat another side.
Side = Callable[[Case], dict[str, Any]]


def plan(config: Config, works: Sequence[str]) -> list[dict[str, Any]]:
    """The cases, checked."""
    given, wanted = len(config.peak_tflops), len(config.precisions)
    if given and given != wanted:
        raise ValueError(f"--peak-tflops: expected a number for each of {wanted} precisions, got {given}")
    sizes = (config.batch_size, config.seed, config.repeats)
    return [
        Case(model, work, precision, *sizes)._asdict()
        for model in config.models
        for precision in config.precisions
        for work in works
    ]


def main(
    config: Config,
    name: str,
    works: Sequence[str],
    sides: Callable[[Case], Sequence[str]],
    *,
    ours: Sequence[str],
    differences: Sequence[str],
) -> None:
    """Measures every case, each side in its own process, and publishes the table.

    Args:
      config: The flags.
      name: Name of the benchmark's module.
      works: What is timed of each model.
      sides: Names of a case's sides, in order; those of PyTorch start with "torch".
      ours: Names of the sides of which the fastest is compared with the fastest of PyTorch's.
      differences: Columns that the side "check" fills, with ``--check``.
    """
    cases = [Case(**case) for case in plan(config, works)]
    if config.check:
        publish_check(config, name, cases, differences)
    else:
        publish(config, name, cases, sides, ours=ours)


def publish(
    config: Config, name: str, cases: Sequence[Case], sides: Callable[[Case], Sequence[str]], *, ours: Sequence[str]
) -> None:
    """Runs the sides of every case and publishes the table; arguments as for ``main``."""
    module = f"benchmarks.{name}"
    torch = has_torch()
    peaks: dict[str, float] = dict(zip(config.precisions, config.peak_tflops, strict=False))
    table, names = [], {}
    for case in cases:
        if case.precision not in peaks:
            peaks[case.precision] = run("peak", case, module)["peak_tflops"]
        row = {key: value for key, value in case._asdict().items() if key in BEFORE}
        for side in sides(case):
            names[f"{side}_ms"] = None
            row |= run(side, case, module) if torch or not side.startswith("torch") else {}
        table.append(row | _compared(row, peaks[case.precision], ours))
        print(f"{case.model} {case.precision} {case.work}: done", file=sys.stderr)
    columns = (*BEFORE, *names, *AFTER)
    case = ("model", "work", "precision", "batch_size")
    measure.publish(name, table, columns, command=measure.command(module), out=config.out, case=case)


def publish_check(config: Config, name: str, cases: Sequence[Case], columns: Sequence[str]) -> None:
    """Runs the side "check" of every case and publishes the differences that it finds."""
    if not has_torch():
        raise ValueError("--check compares with PyTorch, which is not installed")
    module = f"benchmarks.{name}"
    table = []
    for case in cases:
        table.append(case._asdict() | run("check", case, module))
        print(f"{case.model} {case.precision} {case.work}: done", file=sys.stderr)
    columns = ("model", "work", "precision", "batch_size", *columns)
    measure.publish(f"{name}_check", table, columns, command=measure.command(module), out=config.out)


def run(side: str, case: Any, module: str) -> dict[str, Any]:
    """One side of a case, in a process of its own."""
    (found,) = measure.in_own_process(module, ["--case", side, json.dumps(case._asdict())])
    return found


def answer(sides: Mapping[str, Callable[[Any], dict[str, Any]]], words: Sequence[str], kind: type = Case) -> None:
    """What that process does: measures a case of some kind, and prints what it found as JSON."""
    side, case = words
    print(json.dumps([(dict(sides) | {"peak": peak})[side](kind(**json.loads(case)))]))


def timed(side: str, call: Callable[[], Any], repeats: int) -> tuple[Any, dict[str, Any]]:
    """The last result of a call, and its times as columns of a side."""
    result, timing = measure.time_call(call, repeats=repeats)
    return result, {
        f"{side}_ms": timing["median_ms"],
        f"{side}_min_ms": timing["min_ms"],
        f"{side}_max_ms": timing["max_ms"],
        f"{side}_compile_ms": timing["first_ms"] - timing["median_ms"],
        f"{side}_cpu_ms": timing["cpu_ms"],
    }


def inputs(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Random images ``(n, h, w, c)``, uint8, and labels: what they show costs no time."""
    draw = np.random.default_rng(case.seed)
    images = draw.integers(0, 256, (case.batch_size, *SHAPES[case.model]), np.uint8)
    return images, draw.integers(0, CLASSES, case.batch_size).astype(np.int32)


def model(case: Case) -> nn.Module:
    """The flax module of a case; sets the precision of this process."""
    jax.config.update("jax_default_matmul_precision", _PRODUCTS[case.precision])
    return models.create(case.model, classes=CLASSES, dtype=jnp.bfloat16 if case.precision == "bfloat16" else None)


def peak(case: Case) -> dict[str, Any]:
    """What products of growing square matrices reach at best, until one takes a tenth of a second."""
    jax.config.update("jax_default_matmul_precision", _PRODUCTS[case.precision])
    dtype = jnp.bfloat16 if case.precision == "bfloat16" else jnp.float32
    best, size, longest = 0.0, 512, 0.0
    while longest < 100 and size <= 16384:
        square = jnp.ones((size, size), dtype)
        for options in ({}, compiler_options()):
            product = jax.jit(jnp.matmul, compiler_options=options)
            _, timing = measure.time_call(lambda product=product, square=square: product(square, square), repeats=3)
            best = max(best, 2 * size**3 / timing["min_ms"] / 1e9)
            longest = max(longest, timing["min_ms"])
        size *= 2
    return {"peak_tflops": best}


def gflop_per_image(lowered: Any, case: Case) -> float:
    """Operations of a program by XLA's count, over the images; products with padding are not counted."""
    return lowered.cost_analysis()["flops"] / case.batch_size / 1e9


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Euclidean distance over the norm of ``theirs``."""
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def has_torch() -> bool:
    """Whether PyTorch is installed; says how to get it where not."""
    if importlib.util.find_spec("torch"):
        return True
    print(
        "PyTorch is not installed, so its columns stay empty: install the extra `bench`, or its CPU build alone with "
        "`uv pip install --torch-backend cpu torch`",
        file=sys.stderr,
    )
    return False


def _compared(row: dict[str, Any], peak_tflops: float, ours: Sequence[str]) -> dict[str, Any]:
    """Columns of the fastest of our sides and the fastest of PyTorch's."""
    found: dict[str, Any] = {"peak_tflops": peak_tflops}
    fastest: dict[str, float] = {}
    for framework, sides in (("jax", ours), ("torch", TORCH)):
        times = {row[f"{side}_ms"]: side for side in sides if f"{side}_ms" in row}
        if not times:
            continue
        fastest[framework] = min(times)
        per_s = 1e3 * row["batch_size"] / fastest[framework]
        found[f"{framework}_images_per_s"] = per_s
        found[f"{framework}_peak_share"] = per_s * row["gflop_per_image"] / 1e3 / peak_tflops
        if framework == "jax":
            found["compile_ms"] = row[f"{times[min(times)]}_compile_ms"]
    if len(fastest) == 2:
        found["times_torch"] = fastest["jax"] / fastest["torch"]
    return found
