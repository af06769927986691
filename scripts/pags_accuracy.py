"""Accuracy of a trained classifier on images as they are and under L2 attacks; compiled once for many models."""

import functools
from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax

from pags_jax import evaluation, models
from pags_jax.images import to_float
from scripts.harness import compiling

BATCH_SIZE = 250
"""Images in one call."""


def accuracies(
    model: nn.Module,
    variables: Any,
    x: jax.Array,
    y: jax.Array,
    *,
    key: jax.Array,
    eps_l2: Sequence[float],
    steps: int,
    attacked: int | None = None,
) -> list[float]:
    """The share of images classified rightly as they are, and under an attack of each radius.

    Args:
        model: The flax module; the same one for many models compiles once.
        variables: Its parameters and running statistics.
        x: ``(n, h, w, c)`` uint8 images.
        y: ``(n,)`` labels.
        key: Of the attacks' random starts, the same at every radius.
        eps_l2: Radii, for images in [0, 1].
        steps: Of an attack.
        attacked: Attack this many of the images, the first; all by default.

    Returns:
        One share for the images as they are and one for each radius.
    """
    apply_fn = models.evaluator(model, variables)
    as_is, under_attack = _judges(steps)

    def share(judge, x, y):
        return evaluation.accuracy(judge, x, y, key=key, batch_size=min(BATCH_SIZE, len(x)))

    clean = share(partial(as_is, apply_fn), x, y)
    return [clean, *(share(partial(under_attack, apply_fn, eps), x[:attacked], y[:attacked]) for eps in eps_l2)]


@functools.cache
def _judges(steps: int) -> tuple[Any, Any]:
    unroll = jax.default_backend() == "cpu"

    def as_is(apply_fn, x, y, key):
        del key
        return evaluation.correct(apply_fn, to_float(x), y)

    def under_attack(apply_fn, eps_l2, x, y, key):
        return evaluation.robustly_correct(apply_fn, to_float(x), y, key=key, eps_l2=eps_l2, steps=steps, unroll=unroll)

    options = compiling.compiler_options()
    return jax.jit(as_is, compiler_options=options), jax.jit(under_attack, compiler_options=options)
