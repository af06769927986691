"""Accuracy of a trained classifier on images as they are and under attack; compiled once for many models."""

import functools
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from pags_jax import evaluation, models
from pags_jax.balls import Norm
from pags_jax.images import to_float
from scripts.harness import compiling

BATCH_SIZE = 250
"""Images in one call."""


class Accuracies(NamedTuple):
    """Shares of images, and how many the attacks could not test.

    Attributes:
        clean: The share classified rightly as they are.
        attacked: The share that stays right, for each radius; images in ``no_gradient`` are not among them.
        no_gradient: For each radius the number of images that stayed right though no attack on them had a gradient
            all the way, so that nothing is known of them.
    """

    clean: float
    attacked: list[float]
    no_gradient: list[int]


def columns(
    config: Any, model: nn.Module, variables: Any, parts: Mapping[str, tuple[jax.Array, jax.Array]], *, key: jax.Array
) -> dict[str, Any]:
    """What a row says of a model's accuracies: ``PART_accuracy``, ``PART_attacked`` and ``PART_no_gradient``.

    Args:
        config: With the fields ``attack``, ``norm``, ``attack_eps``, ``attack_steps`` and ``attack_rows``.
        model: As for `accuracies`, as are the variables and the key.
        variables: Of the model.
        parts: Images and labels by name.
        key: Of the attacks.
    """
    row = {"attack_eps": config.attack_eps, "attack_norm": config.norm}
    for part, (x, y) in parts.items():
        found = accuracies(
            model, variables, x, y, key=key, eps=config.attack_eps, steps=config.attack_steps, norm=config.norm,
            attack=config.attack, attacked=config.attack_rows,
        )  # fmt: skip
        row |= {f"{part}_accuracy": found.clean, f"{part}_attacked": found.attacked}
        row |= {f"{part}_no_gradient": found.no_gradient}
    return row


def accuracies(
    model: nn.Module,
    variables: Any,
    x: jax.Array,
    y: jax.Array,
    *,
    key: jax.Array,
    eps: Sequence[float],
    steps: int,
    norm: Norm = "l2",
    attack: evaluation.Attack = "pgd",
    attacked: int | None = None,
) -> Accuracies:
    """The share of images classified rightly as they are, and under attacks of each radius.

    Args:
        model: The flax module; the same one for many models compiles once.
        variables: Its parameters and running statistics.
        x: ``(n, h, w, c)`` uint8 images.
        y: ``(n,)`` labels.
        key: Of the attacks' random starts, the same at every radius.
        eps: Radii, for images in [0, 1].
        steps: Of each attack.
        norm: What radii are measured in.
        attack: Which attacks.
        attacked: Attack this many of the images, the first; all by default.

    Returns:
        The shares.
    """
    apply_fn = models.evaluator(model, variables)
    as_is, attack_judge = _judges(steps, norm, attack)

    def share(judge, x, y):
        return evaluation.accuracy(judge, x, y, key=key, batch_size=min(BATCH_SIZE, len(x)))

    clean = share(partial(as_is, apply_fn), x, y)
    x, y = x[:attacked], y[:attacked]
    found = [share(partial(attack_judge, apply_fn, radius), x, y) for radius in eps]
    return Accuracies(clean, [one.robust for one in found], [round(one.no_gradient * len(x)) for one in found])


@functools.cache
def _judges(steps: int, norm: Norm, attack: evaluation.Attack) -> tuple[Any, Any]:
    unroll = jax.default_backend() == "cpu"

    def as_is(apply_fn, x, y, key):
        del key
        return evaluation.correct(apply_fn, to_float(x), y)

    def under_attack(apply_fn, radius, x, y, key):
        options: dict[str, Any] = {f"eps_{norm}": radius, "steps": steps, "attack": attack, "unroll": unroll}
        return evaluation.under_attack(apply_fn, to_float(x), y, key=key, **options)

    options = compiling.compiler_options()
    return jax.jit(as_is, compiler_options=options), jax.jit(under_attack, compiler_options=options)
