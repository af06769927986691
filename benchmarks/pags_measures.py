"""Time of the paper's measures, beside PyTorch doing them as the paper's code does, and as fast as it can.

    python -m benchmarks.pags_measures                                                # all of them
    python -m benchmarks.pags_measures --measures lpips --items 2 --repeats 1         # a smoke run
    python -m benchmarks.pags_measures --check --items 2                              # do all compute the same?

Warm medians in milliseconds an item, compilation apart. Items are

    tangent_basis          an image of 32 x 32 x 3, at which a decoder's tangent space is factorised
    manifold_robustness    an image that a classifier meets after four steps on the manifold and four off it
    lpips                  a pair of images of 32 x 32 x 3

``jax`` is ours as the scripts call it. ``reference`` is PyTorch the reference's way: a backward pass for each pixel; a
factorisation for each image and a forward pass for each step; a pair at a time. ``torch`` and ``torch_nhwc`` (channels
last) are the fastest that we know to write in PyTorch: forward mode under ``vmap``, and single batches without
autograd. ``times_reference`` says how many times faster than the reference ours is; ``times_torch`` is ours over the
faster of the other two: below 1, ours is faster.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure, pags_cases
from pags_jax import alignment, manifold, models, robustness, tangents
from pags_jax.datasets.lpips_weights import load_lpips_weights
from scripts.harness import cli
from scripts.harness.compiling import jitted

Measure = Literal["tangent_basis", "manifold_robustness", "lpips"]
MODULE = "benchmarks.pags_measures"
SIDES_OF = ("jax", *pags_cases.TORCH, "reference")
#: Items of one call; the reference's way always does a few alone, since its items do not share work.
ITEMS = {"tangent_basis": 4, "manifold_robustness": 16, "lpips": 64}
REFERENCE_ITEMS = {"tangent_basis": 1, "manifold_robustness": 4, "lpips": 64}
COLUMNS = ("work", "items", *(f"{side}_ms" for side in SIDES_OF), "jax_per_s", "times_reference", "times_torch")
SHAPE = (32, 32, 3)
EPS = (0.1, 0.5, 2.637, 10.0)


@dataclass(frozen=True)
class Config(cli.Common):
    """Time the measures, ours and PyTorch's."""

    out: Path = Path("benchmarks/results")
    measures: tuple[Measure, ...] = ("tangent_basis", "manifold_robustness", "lpips")
    """What to time."""
    model: Literal["lenet", "resnet18"] = "resnet18"
    """The classifier of manifold_robustness, for 28 x 28 x 1 or 32 x 32 x 3 images."""
    latent: cli.Count = 128
    """Size of the decoder's code."""
    widths: tuple[cli.Count, ...] = (64, 144, 320)
    """Channels at the decoder's levels; these and 128 codes make 3.2 million parameters."""
    items: cli.Count | None = None
    """Items of one call; by default 4 tangent bases, 16 images or 64 pairs, and for the reference's way 1, 4 and 64."""
    repeats: cli.Count = 5
    """Warm calls, of which the median counts; one where a tangent basis is made the reference's way."""
    check: bool = False
    """Measure no times, but how far PyTorch's results are from ours."""


class Case(NamedTuple):
    """What one process measures."""

    work: Measure
    model: Literal["lenet", "resnet18"]
    latent: int
    widths: tuple[int, ...]
    items: int | None
    seed: int
    repeats: int


def plan(config: Config) -> list[dict[str, Any]]:
    """The cases."""
    sizes = (config.latent, config.widths, config.items, config.seed, config.repeats)
    return [Case(work, config.model, *sizes)._asdict() for work in config.measures]


def main(config: Config) -> None:
    """Times them, or checks that all compute the same."""
    torch = pags_cases.has_torch()
    if config.check and not torch:
        raise ValueError("--check compares with PyTorch, which is not installed")
    table = []
    for case in (Case(**case) for case in plan(config)):
        row: dict[str, Any] = case._asdict()
        for side in ("check",) if config.check else SIDES_OF:
            row |= pags_cases.run(side, case, MODULE) if torch or side == "jax" else {}
        table.append(row if config.check else row | _compared(row))
        print(f"{case.work}: done", file=sys.stderr)
    name, columns = ("pags_measures_check", ("work", *pags_cases.TORCH, "reference"))
    if not config.check:
        name, columns = "pags_measures", COLUMNS
    measure.publish(name, table, columns, command=measure.command(MODULE), out=config.out, case=("work",))


def _compared(row: dict[str, Any]) -> dict[str, Any]:
    found = {"jax_per_s": 1e3 / row["jax_ms"]}
    if "torch_ms" in row:
        fastest = min(row[f"{side}_ms"] for side in pags_cases.TORCH)
        found |= {"times_reference": row["reference_ms"] / row["jax_ms"], "times_torch": row["jax_ms"] / fastest}
    return found


def timed_side(case: Case, side: str) -> dict[str, Any]:
    """Times of one side, an item."""
    items = items_of(case, side)
    slow = side == "reference" and case.work == "tangent_basis"
    _, row = pags_cases.timed(side, call_of(case, side, items), 1 if slow else case.repeats)
    row = {name: value if name.endswith("compile_ms") else value / items for name, value in row.items()}
    if side == "jax":
        return row | {"items": items}
    from benchmarks import torch_peer

    return row | torch_peer.build()


def check_side(case: Case) -> dict[str, Any]:
    """Distance of PyTorch's results from ours, over the norm of PyTorch's; of bases, that of their projectors."""
    items = items_of(case, "reference")
    ours, *others = (comparable(case, side, call_of(case, side, items)()) for side in SIDES_OF)
    return {side: pags_cases.difference(ours, other) for side, other in zip(SIDES_OF[1:], others, strict=True)}


def items_of(case: Case, side: str) -> int:
    """How many items one call of a side works on."""
    return case.items or (REFERENCE_ITEMS if side == "reference" else ITEMS)[case.work]


def comparable(case: Case, side: str, result: Any) -> np.ndarray:
    """A result as an array that is one for all sides: images' axes as ours, and projectors for bases."""
    if case.work != "tangent_basis":
        return np.stack(result) if isinstance(result, tuple) else np.asarray(result.cpu() if side != "jax" else result)
    if side == "jax":
        flat = np.asarray(result).reshape(*result.shape[:2], -1)
    else:
        height, width, channels = SHAPE
        pixels = result.cpu().numpy().reshape(*result.shape[:2], channels, height, width)
        flat = pixels.transpose(0, 1, 3, 4, 2).reshape(*result.shape[:2], -1)
    return np.einsum("nkf,nkg->nfg", flat, flat)


def call_of(case: Case, side: str, items: int) -> Callable[[], Any]:
    """The call that is timed."""
    return {
        "tangent_basis": tangent_basis,
        "manifold_robustness": manifold_robustness,
        "lpips": lpips,
    }[case.work](case, side, items)


def tangent_basis(case: Case, side: str, items: int) -> Callable[[], Any]:
    """A decoder with random weights: what it draws costs no time."""
    draw = np.random.default_rng(case.seed)
    z = draw.standard_normal((items, case.latent), np.float32)
    model = models.Autoencoder(SHAPE, case.latent, tuple(case.widths))
    shapes = jax.eval_shape(lambda key: model.init(key, jnp.zeros((1, *SHAPE), jnp.float32)), jax.random.key(0))
    variables = jax.tree.map(lambda a: np.float32(draw.standard_normal(a.shape) / np.sqrt(_fan_in(a.shape))), shapes)
    if side == "jax":
        decode = models.decoder(model, jax.tree.map(jnp.asarray, variables))
        codes = jnp.asarray(z)
        return lambda: tangents.of_decoder(decode, codes, basis=jitted(manifold.tangent_basis))
    from benchmarks import torch_measures

    params = variables["params"]["decoder"]
    decode = torch_measures.decoder(params, SHAPE, case.latent, tuple(case.widths), channels_last=side == "torch_nhwc")
    decode.requires_grad_(side == "reference")
    codes = torch_measures.tensor(z)
    way = torch_measures.reference_tangent_basis if side == "reference" else torch_measures.tangent_basis
    return _waiting(lambda: way(decode, codes))


def manifold_robustness(case: Case, side: str, items: int) -> Callable[[], Any]:
    """A fresh classifier, and random tangent spaces of as many dimensions as the decoder's code."""
    draw = np.random.default_rng(case.seed)
    shape = pags_cases.SHAPES[case.model]
    size = int(np.prod(shape))
    x = draw.random((items, *shape), np.float32)
    noise = draw.standard_normal((items, *shape), np.float32)
    columns = draw.standard_normal((items, size, case.latent), np.float32)
    bases = np.linalg.qr(columns)[0].transpose(0, 2, 1).reshape(items, case.latent, *shape)
    model = models.create(case.model, classes=pags_cases.CLASSES)
    variables = jax.jit(models.init, static_argnums=0)(model, jnp.asarray(x), key=jax.random.key(case.seed))
    if side == "jax":
        arrays = models.evaluator(model, variables), jnp.asarray(x), jnp.asarray(bases)
        at = {"noise": jnp.asarray(noise)[None], "eps_l2": jnp.asarray(EPS, jnp.float32)}
        measured = jitted(robustness.manifold_robustness)
        return lambda: measured(*arrays, **at)
    from benchmarks import torch_measures, torch_peer

    peer = torch_peer.create(case.model, classes=pags_cases.CLASSES, channels_last=side == "torch_nhwc")
    torch_peer.load(peer, variables)
    peer.eval()
    images, draws = torch_peer.images(x, channels_last=side == "torch_nhwc"), torch_peer.images(noise)
    eps = torch_measures.tensor(np.array(EPS, np.float32))
    pixels_first = bases.transpose(0, 1, 4, 2, 3).reshape(items, case.latent, size)
    if side == "reference":
        jacobians = pixels_first.transpose(0, 2, 1)
        return _waiting(lambda: torch_measures.reference_manifold_robustness(peer, images, jacobians, draws, eps))
    basis = torch_measures.tensor(pixels_first)
    return _waiting(lambda: torch_measures.manifold_robustness(peer, images, basis, draws, eps))


def lpips(case: Case, side: str, items: int) -> Callable[[], Any]:
    """Pairs of random images in [-1, 1]."""
    draw = np.random.default_rng(case.seed)
    a, b = (draw.uniform(-1, 1, (items, *SHAPE)).astype(np.float32) for _ in range(2))
    weights = load_lpips_weights()
    if side == "jax":
        arrays, weights = (jnp.asarray(a), jnp.asarray(b)), jax.tree.map(jnp.asarray, weights)
        distance = jax.jit(lambda a, b, weights: alignment.lpips(a, b, weights=weights))
        return lambda: distance(*arrays, weights)
    from benchmarks import torch_measures, torch_peer

    peer = torch_measures.Lpips(weights, channels_last=side == "torch_nhwc")
    pair = [torch_peer.images(images, channels_last=side == "torch_nhwc") for images in (a, b)]
    return _waiting(lambda: (peer.one_by_one if side == "reference" else peer)(*pair))


def _waiting(call: Callable[[], Any]) -> Callable[[], Any]:
    from benchmarks import torch_peer

    def done():
        result = call()
        torch_peer.wait()
        return result

    return done


def _fan_in(shape: tuple[int, ...]) -> int:
    return max(1, int(np.prod(shape[:-1])))


SIDES: dict[str, Callable[[Any], dict[str, Any]]] = {
    **{side: lambda case, side=side: timed_side(case, side) for side in SIDES_OF},
    "check": check_side,
}

if __name__ == "__main__":
    if sys.argv[1:2] == ["--case"]:
        pags_cases.answer(SIDES, sys.argv[2:], Case)
    else:
        sys.exit(cli.run(main, Config, plan=plan))
