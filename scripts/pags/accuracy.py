"""Accuracy of a trained classifier on images as they are and under attack; compiled once for many models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from scripts.harness import compiling, names
from scripts.harness.lazy import jax, pags_jax

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
    config: Any, model: Any, variables: Any, parts: Mapping[str, tuple[jax.Array, jax.Array]], *, key: jax.Array
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
    model: Any,
    variables: Any,
    x: jax.Array,
    y: jax.Array,
    *,
    key: jax.Array,
    eps: Sequence[float],
    steps: int,
    norm: names.Norm = "l2",
    attack: names.Attack = "pgd",
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
    apply_fn = pags_jax.models.evaluator(model, variables)
    options = {"steps": steps, "norm": norm, "attack": attack, "unroll": jax.default_backend() == "cpu"}

    def share(judge, x, y):
        return pags_jax.evaluation.accuracy(judge, x, y, key=key, batch_size=min(BATCH_SIZE, len(x)))

    clean = share(partial(_as_is, apply_fn), x, y)
    x, y = x[:attacked], y[:attacked]
    found = [share(partial(_under_attack, apply_fn, radius, **options), x, y) for radius in eps]
    return Accuracies(clean, [one.robust for one in found], [round(one.no_gradient * len(x)) for one in found])


@compiling.compiled()
def _as_is(apply_fn, x, y, key):
    del key
    return pags_jax.evaluation.correct(apply_fn, pags_jax.images.to_float(x), y)


@compiling.compiled(static=("steps", "norm", "attack", "unroll"))
def _under_attack(apply_fn, radius, x, y, key, *, norm, **options):
    x = pags_jax.images.to_float(x)
    return pags_jax.evaluation.under_attack(apply_fn, x, y, key=key, **{f"eps_{norm}": radius}, **options)
