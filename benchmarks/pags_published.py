"""What networks of published sizes cost, and input gradients of theirs beside PyTorch.

    python -m benchmarks.pags_published                                               # all of it
    python -m benchmarks.pags_published --works gradients --models wrn-28-10 --batch-size 2 --repeats 1
    python -m benchmarks.pags_published --works alignment --cifar10 cifar-10-batches-bin/test_batch.bin
    python -m benchmarks.pags_published --check                                       # do both compute the same?

Weights are random, since published ones need a download; sizes are the published ones. Works are

    gradients    input gradients of the label's logit, float32: ``jax`` is `input_gradients` as compiled for this
                 backend, ``torch`` and ``torch_nhwc`` (channels last) are PyTorch's with weights frozen; its threads
                 wait busily for each other, so that their CPU time is that of its work only with OMP_NUM_THREADS=1
    cost         `load_pretrained` of a file of `models.save`, and one image through the network: seconds to load and to
                 compile, milliseconds a call, and the largest resident memory after each, of a process that does
                 nothing else; ``cpu`` is what all of its threads took of the CPUs, where others use the machine too
    alignment    the whole of the measure: both files loaded, gradients of Engstrom's ResNet-50 and scores of EDM's
                 conditional denoiser at sigma 0.5 on a few images, then their cosine and 1 - LPIPS

``--check`` writes each classifier by ``torch.save`` and loads it here, in both containers and four types of numbers:
``stored_differences`` counts the tensors that differ from PyTorch's, ``logits`` and ``gradients`` are distances over
PyTorch's norms, image by image. Where rounding moves the input of a ReLU across zero, an image's gradient jumps, in
either framework: ``jax_from_float64`` and ``torch_from_float64`` say how far, ``flipped`` at how many ``relus``;
``same_signs`` is the distance in float32 where both take the signs of float64, ``float64`` that in float64. It fails
where one is above its limit in ``MOST``. Every side runs in a process of its own.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure, pags_cases
from benchmarks.published_networks import Model, network, random_variables
from pags_jax import alignment, models, scores
from pags_jax.datasets import cifar
from pags_jax.datasets.lpips_weights import load_lpips_weights
from pags_jax.gradients import input_gradients
from pags_jax.images import to_float
from scripts.harness import cli
from scripts.harness.compiling import compiler_options

MODULE = "benchmarks.pags_published"
Work = Literal["gradients", "cost", "alignment"]
#: Which of them each work is about, by default.
MODELS: dict[str, tuple[Model, ...]] = {
    "gradients": ("resnet50", "wrn-28-10"),
    "cost": ("resnet50", "wrn-28-10", "edm-cifar10", "edm-imagenet64"),
    "alignment": ("engstrom",),
}
SIDES_OF = {"gradients": ("jax", *pags_cases.TORCH), "cost": ("cost",), "alignment": ("alignment",)}
COLUMNS = {
    "gradients": (
        *("model", "batch_size", "jax_ms", "torch_ms", "torch_nhwc_ms", "jax_compile_ms", "times_torch"),
        *("jax_cpu_ms", "torch_cpu_ms", "torch_nhwc_cpu_ms", "times_torch_cpu"),
    ),
    "cost": (
        *("model", "parameters", "file_mb", "load_s", "load_cpu_s", "load_peak_mb", "cost_compile_ms", "cost_ms"),
        *("cost_cpu_ms", "peak_mb"),
    ),
    "alignment": (
        *("model", "batch_size", "images", "load_s", "gradients_s", "scores_s", "measures_s"),
        *("alignment_ms", "alignment_cpu_ms", "cosine", "similarity", "peak_mb"),
    ),
    "check": (
        *("model", "batch_size", "stored_differences", "logits", "gradients", "gradients_largest", "float64"),
        *("jax_from_float64", "torch_from_float64", "relus", "jax_flipped", "torch_flipped", "same_signs"),
    ),
}
MOST = {"stored_differences": 0, "logits": 1e-4, "gradients": 1e-4, "float64": 1e-9, "same_signs": 1e-4}
SIZES = {"resnet50": 224, "edm-imagenet64": 64}


@dataclass(frozen=True)
class Config(cli.Common):
    """Measure networks of published sizes."""

    out: Path = Path("benchmarks/results")
    works: tuple[Work, ...] = ("gradients", "cost", "alignment")
    """What to measure."""
    models: tuple[Model, ...] = ()
    """Of which networks; by default those that the work is about."""
    batch_size: cli.Count = 8
    """Images of a batch; the cost is always that of one image."""
    repeats: cli.Count = 3
    """Warm calls, of which the median counts."""
    cifar10: Path | None = None
    """CIFAR-10's test_batch.bin, whose first images the alignment is measured on; random ones by default."""
    check: bool = False
    """Measure no times, but how far PyTorch's results are from ours."""


class Case(NamedTuple):
    """What one process measures; ``file`` is where a process before it wrote the networks."""

    work: str
    model: Model
    batch_size: int
    seed: int
    repeats: int
    cifar10: str
    file: str = ""


def plan(config: Config) -> list[dict[str, Any]]:
    """The cases, checked."""
    if config.cifar10 is not None and not config.cifar10.is_file():
        raise ValueError(f"--cifar10: no file {config.cifar10}")
    sizes = (config.batch_size, config.seed, config.repeats, str(config.cifar10 or ""))
    works = ("gradients",) if config.check else config.works
    return [
        Case("check" if config.check else work, model, *sizes)._asdict()
        for work in works
        for model in config.models or MODELS[work]
        if work != "gradients" or not model.startswith("edm")
    ]


def main(config: Config) -> None:
    """Measures every case and publishes a table for each work."""
    torch = pags_cases.has_torch()
    if config.check and not torch:
        raise ValueError("--check compares with PyTorch, which is not installed")
    tables: dict[str, list[dict[str, Any]]] = {}
    for case in (Case(**case) for case in plan(config)):
        row: dict[str, Any] = case._asdict()
        with tempfile.TemporaryDirectory() as folder:
            case = case._replace(file=str(Path(folder) / "network.safetensors"))
            if case.work in ("cost", "alignment"):
                pags_cases.run("write", case, MODULE)
            for side in SIDES_OF.get(case.work, ("check",)):
                row |= pags_cases.run(side, case, MODULE) if torch or not side.startswith("torch") else {}
        if "torch_ms" in row:
            for name, unit in (("times_torch", "ms"), ("times_torch_cpu", "cpu_ms")):
                row[name] = row[f"jax_{unit}"] / min(row[f"{side}_{unit}"] for side in pags_cases.TORCH)
        tables.setdefault(case.work, []).append({k: v for k, v in row.items() if k not in ("file", "cifar10")})
        print(f"{case.work} {case.model}: done", file=sys.stderr)
    for work, table in tables.items():
        name, command = f"pags_published_{work}", measure.command(MODULE)
        measure.publish(name, table, COLUMNS[work], command=command, out=config.out, case=("model", "batch_size"))
    for row in tables.get("check", ()):
        if wrong := {name: row[name] for name, most in MOST.items() if not row[name] <= most}:
            raise ValueError(f"--check: {row['model']} differs from PyTorch: {wrong}, at most {MOST}")


def images_of(case: Case) -> tuple[np.ndarray, np.ndarray, str]:
    """Images, uint8, their labels, and whose they are."""
    draw, size = np.random.default_rng(case.seed), SIZES.get(case.model, 32)
    if case.cifar10:
        content = Path(case.cifar10).read_bytes()
        x, y = cifar.decode(content, classes=(10,), records=cifar.CIFAR10.test_records, source=case.cifar10)
        return x[: case.batch_size], y[: case.batch_size, 0], "CIFAR-10"
    x = draw.integers(0, 256, (case.batch_size, size, size, 3), np.uint8)
    return x, draw.integers(0, 10, case.batch_size).astype(np.int32), "random"


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Under ``jit``, compiled as the scripts do."""
    return jax.jit(function, compiler_options=compiler_options())


def write_side(case: Case) -> dict[str, Any]:
    """Writes what the next process loads."""
    names: tuple[Model, ...] = (case.model, "edm-cifar10-cond") if case.work == "alignment" else (case.model,)
    for name in names:
        model = network(name)
        path = Path(case.file).with_stem(name)
        models.save(path, model, random_variables(model, case.seed), {"weights": "random"})
    return {}


def gradients_side(case: Case) -> dict[str, Any]:
    """Ours."""
    model = network(case.model)
    apply_fn = models.evaluator(model, jax.tree.map(jnp.asarray, random_variables(model, case.seed)))
    x, y, _ = images_of(case)
    gradients = compiled(lambda f, x, y: input_gradients(f, to_float(x), y, target="logit"))
    return pags_cases.timed("jax", lambda: gradients(apply_fn, jnp.asarray(x), jnp.asarray(y)), case.repeats)[1]


def torch_side(case: Case, side: str) -> dict[str, Any]:
    """PyTorch's, in one layout."""
    from benchmarks import torch_peer, torch_published

    x, y, _ = images_of(case)
    layout = {"channels_last": side == "torch_nhwc"}
    model = torch_published.create(case.model, seed=case.seed, **layout)
    images, labels = torch_peer.images(x, **layout), torch_peer.labels(y)

    def differentiate():
        result = torch_peer.input_gradients(model, images, labels, "logit")
        torch_peer.wait()
        return result

    return pags_cases.timed(side, differentiate, case.repeats)[1] | torch_peer.build()


def cost_side(case: Case) -> dict[str, Any]:
    """One image through a network that was loaded from its file."""
    path = Path(case.file).with_stem(case.model)
    begin, cpu = time.perf_counter(), time.process_time()
    function, about = models.load_pretrained(path)
    row = {
        "parameters": about["parameters"],
        "file_mb": path.stat().st_size / 1e6,
        "load_s": time.perf_counter() - begin,
        "load_cpu_s": time.process_time() - cpu,
        "load_peak_mb": measure.peak_memory_mb(),
        "batch_size": 1,
    }
    x = jnp.asarray(images_of(case._replace(batch_size=1))[0], jnp.float32) / 255
    run = compiled(lambda f, x: f(x)) if about["kind"] == "classifier" else compiled(lambda f, x: f(2 * x - 1, 0.5))
    _, timing = pags_cases.timed("cost", lambda: run(function, x), case.repeats)
    return row | timing | {"peak_mb": measure.peak_memory_mb()}


def alignment_side(case: Case) -> dict[str, Any]:
    """From two files and images to two numbers; ``alignment_ms`` is all of it once more, compiled."""
    begin = time.perf_counter()
    (apply_fn, _), (denoise, _) = (
        models.load_pretrained(Path(case.file).with_stem(name)) for name in (case.model, "edm-cifar10-cond")
    )
    row: dict[str, Any] = {"load_s": time.perf_counter() - begin}
    x, y, row["images"] = images_of(case)
    x, y = to_float(x), jnp.asarray(y)
    gradients = compiled(lambda f, x, y: input_gradients(f, x, y, target="logit"))
    scored = compiled(lambda denoise, x, y: scores.score(denoise.of(y), x, sigma_pm1=0.5))
    weights = jax.tree.map(jnp.asarray, load_lpips_weights())
    compared = compiled(lambda a, b, w: (alignment.cosine(a, b), alignment.perceptual_similarity(a, b, weights=w)))

    def measured(row: dict[str, Any]) -> Any:
        begin = time.perf_counter()
        found = []
        for name, call in (
            ("gradients_s", lambda: gradients(apply_fn, x, y)),
            ("scores_s", lambda: scored(denoise, x, y)),
            ("measures_s", lambda: compared(*found, weights)),
        ):
            found.append(jax.block_until_ready(call()))
            row[name], begin = time.perf_counter() - begin, time.perf_counter()
        return found[-1]

    cosine, similarity = measured(row)
    _, timing = pags_cases.timed("alignment", lambda: measured({}), case.repeats)
    values = {"cosine": float(cosine.mean()), "similarity": float(similarity.mean())}
    times = {name: timing[name] for name in ("alignment_ms", "alignment_cpu_ms")}
    return row | values | times | {"peak_mb": measure.peak_memory_mb()}


def check_side(case: Case) -> dict[str, Any]:
    """What PyTorch wrote and computes, beside what we read and compute."""
    from benchmarks import torch_check

    return torch_check.check(case.model, *images_of(case)[:2], seed=case.seed, folder=Path(case.file).parent)


SIDES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "jax": gradients_side,
    **{side: partial(torch_side, side=side) for side in pags_cases.TORCH},
    "write": write_side,
    "cost": cost_side,
    "alignment": alignment_side,
    "check": check_side,
}

if __name__ == "__main__":
    if sys.argv[1:2] == ["--case"]:
        pags_cases.answer(SIDES, sys.argv[2:], Case)
    else:
        sys.exit(cli.run(main, Config, plan=plan))
