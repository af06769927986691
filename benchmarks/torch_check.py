"""What PyTorch writes and computes of published networks, beside what is read and computed here. Needs PyTorch."""

import contextlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import torch.nn.functional as F  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]

from benchmarks import torch_published
from benchmarks.torch_peer import images, labels
from pags_jax import gradients, models
from pags_jax.models import resnet
from scripts.harness.compiling import compiler_options


def check(name: str, x: np.ndarray, y: np.ndarray, *, seed: int, folder: Path) -> dict[str, Any]:
    """Writes a network as its publisher does, and compares what ``load_pretrained`` makes of the files.

    Args:
      name: As for ``torch_published.create``.
      x: Images, uint8.
      y: Labels.
      seed: Seed of the weights.
      folder: Folder for the files.

    Returns:
      ``stored_differences``, tensors that differ from what was written, over five files; and distances over PyTorch's
      norms, image by image: the largest of the ``logits``; the median and the largest of the ``gradients``, and what is
      left of the largest in ``float64``; and how far either is in float32 from PyTorch in float64, at most. Then how
      many of how many inputs of ``relus`` have another sign in float32 than in float64 (``flipped``), and the largest
      distance of the gradients in float32 where both take the signs of float64 (``same_signs``).
    """
    jax.config.update("jax_enable_x64", True)
    model, different = torch_published.create(name, seed=seed), 0
    kinds = [(None, True), (None, False), (torch.float16, True), (torch.bfloat16, False), (torch.float64, True)]
    for number, (dtype, zipped) in enumerate(kinds):
        path = folder / f"{number}.pt"
        written = torch_published.save(model, path, dtype=dtype, zipped=zipped)
        read = models.read_pretrained(path).variables
        expected = sorted(_flat(tensor) for n, tensor in written.items() if _is_used(n))
        found = sorted(_flat(leaf) for leaf in jax.tree.leaves(read))
        different += abs(len(found) - len(expected))
        different += sum(one != other for one, other in zip(found, expected, strict=False))
    ours = {dtype: _ours(folder / "0.pt", x, y, dtype) for dtype in (np.float32, np.float64)}
    theirs: dict[Any, Any] = {np.float32: _theirs(model, x, y, np.float32)}
    theirs[np.float64] = _theirs(model.double(), x, y, np.float64)
    exact = [one[np.float64] for one in (ours, theirs)]
    same = (
        _ours(folder / "0.pt", x, y, np.float32, exact[0].signs),
        _theirs(model.float(), x, y, np.float32, exact[1].signs),
    )
    rounded, truth = (ours[np.float32], theirs[np.float32]), exact[1].gradient
    gradient = _distances(rounded[0].gradient, rounded[1].gradient)
    flipped = [
        sum(int((one != other).sum()) for one, other in zip(low.signs, high.signs, strict=True))
        for low, high in zip(rounded, exact, strict=True)
    ]
    return {
        "stored_differences": different,
        "logits": float(_distances(rounded[0].logits, rounded[1].logits).max()),
        "gradients": float(np.median(gradient)),
        "gradients_largest": float(gradient.max()),
        "float64": float(_distances(exact[0].gradient, truth).max()),
        "jax_from_float64": float(_distances(rounded[0].gradient, truth).max()),
        "torch_from_float64": float(_distances(rounded[1].gradient, truth).max()),
        "relus": sum(signs.size for signs in exact[0].signs),
        "jax_flipped": flipped[0],
        "torch_flipped": flipped[1],
        "same_signs": float(_distances(same[0].gradient, same[1].gradient).max()),
    }


class Results(NamedTuple):
    """Logits, gradients of the labels' logits by the image in [0, 1], and which inputs of ReLUs are above 0."""

    logits: np.ndarray
    gradient: np.ndarray
    signs: list[np.ndarray]


@contextlib.contextmanager
def _relus(where: Any, name: str, active: list[Any], signs: Sequence[Any] | None):
    """Notes the signs of what the ReLUs that a module calls take; they pass what ``signs`` says, where given."""
    original = getattr(where, name)

    def relu(x: Any, *options: Any) -> Any:
        out = original(x, *options) if signs is None else x * signs[len(active)]
        active.append(x > 0)
        return out

    with mock.patch.object(where, name, relu):
        yield


def _ours(path: Path, x: np.ndarray, y: np.ndarray, dtype: Any, signs: Sequence[np.ndarray] | None = None) -> Results:
    apply_fn, _ = models.load_pretrained(path, dtype=dtype)

    @partial(jax.jit, compiler_options=compiler_options())
    def both(apply_fn, x, y, signs):
        active: list[Any] = []
        with _relus(resnet, "activate", active, signs):
            logits = apply_fn(x)
        with _relus(resnet, "activate", [], signs):
            if signs is None:
                return logits, gradients.input_gradients(apply_fn, x, y, target="logit"), active
            # `input_gradients` tries one image first; the signs that are given are those of all.
            label = jax.grad(lambda x: jnp.take_along_axis(apply_fn(x), y[:, None], axis=1).sum())
            return logits, label(x), active

    given = None if signs is None else [jnp.asarray(array, dtype) for array in signs]
    found = both(apply_fn, jnp.asarray(x.astype(dtype) / dtype(255)), jnp.asarray(y), given)
    return Results(*jax.tree.map(np.asarray, found))


def _theirs(
    model: nn.Module, x: np.ndarray, y: np.ndarray, dtype: Any, signs: Sequence[np.ndarray] | None = None
) -> Results:
    pictures, active = images(x.astype(dtype) / dtype(255)).requires_grad_(), []
    given = None if signs is None else [torch.from_numpy(array).to(pictures) for array in signs]
    with _relus(F, "relu", active, given):
        logits = model(pictures)
    (gradient,) = torch.autograd.grad(logits.gather(1, labels(y)[:, None]).sum(), pictures)
    found = [logits.detach(), gradient.permute(0, 2, 3, 1), *active]
    logits, gradient, *active = [tensor.cpu().numpy() for tensor in found]
    return Results(logits, gradient, active)


def _distances(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Of each image, over the norm of ``theirs``."""
    ours, theirs = (values.reshape(len(values), -1) for values in (ours, theirs))
    return np.linalg.norm(ours - theirs, axis=1) / np.linalg.norm(theirs, axis=1)


def _is_used(name: str) -> bool:
    return not name.endswith("num_batches_tracked") and not name.startswith(("module.attacker.", "module.normalizer."))


def _flat(tensor: Any) -> tuple[int, bytes]:
    """Number of elements and their sorted bytes in float32: the same for all orders of axes."""
    values = tensor.float().cpu().numpy() if isinstance(tensor, torch.Tensor) else np.asarray(tensor)
    values = values.astype(np.float32).ravel() + np.float32(0)  # Without zeros below zero, which sort anyhow.
    return values.size, np.sort(values).tobytes()
