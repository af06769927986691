"""How robust models are trained: strengths, the learning rate for each, and the augmentation of a data set.

Strengths, which ``pags_jax.strengths`` lists, are this project's (see `pags_jax.losses`) or the reference's constants,
which mean something else: its gradient-norm constant hides ``1e5 / N^2`` for batches of ``N``, and its attacks share
one ball among a batch, about ``sqrt(N)`` times as large as each image's. There the rate falls in proportion above a
strength of each loss; ours stays, and long gradients are shortened instead (``training.Hyper.clip``), so that few
epochs do for all strengths.
"""

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np

from pags_jax import augmentation, losses, training
from pags_jax.balls import Norm
from pags_jax.datasets.labelled_images import Images
from pags_jax.strengths import COLOUR_PHOTOGRAPHS as COLOUR_PHOTOGRAPHS
from pags_jax.strengths import RECIPES as RECIPES
from pags_jax.strengths import Loss as Loss
from pags_jax.strengths import Recipe as Recipe
from pags_jax.strengths import log_spaced as log_spaced
from pags_jax.strengths import read_strengths as read_strengths

Unit = Literal["own", "reference"]
Augment = Literal["auto", "none", "crop", "crop-flip"]

AUGMENTATIONS = {"none": augmentation.unchanged, "crop": augmentation.crop, "crop-flip": augmentation.crop_and_flip}


def strengths_of(loss: Loss, given: tuple[float, ...], unit: str, dataset: str) -> tuple[float, ...]:
    """The strengths to sweep: those given, or the recipe's in that unit; the cross-entropy has none but 0.

    Args:
      loss: Its name.
      given: Strengths, or none.
      unit: "own" or "reference".
      dataset: Name of the images; photographs in colour have strengths of their own.

    >>> strengths_of("adversarial", (), "own", "mnist")
    (0.25, 0.5, 1.0, 1.5, 2.0, 2.5)
    """
    if given and loss != "cross_entropy":
        return given
    own = "photographs" if dataset in COLOUR_PHOTOGRAPHS else "own"
    return getattr(RECIPES[loss], own if unit == "own" else unit)


def sweep(losses: Sequence[Loss], given: tuple[float, ...], unit: str, dataset: str) -> list[tuple[Loss, float]]:
    """Losses and strengths in the order in which to train: of all losses the first strength, of all the second, ...

    Args:
      losses: Their names.
      given: As for ``strengths_of``, as ``unit`` and ``dataset``.
      unit: As there.
      dataset: As there.

    >>> sweep(["cross_entropy", "smoothness"], (1.0, 2.0), "own", "mnist")
    [('cross_entropy', 0.0), ('smoothness', 1.0), ('smoothness', 2.0)]
    """
    swept: list[list[tuple[Loss, float]]] = [
        [(loss, strength) for strength in strengths_of(loss, given, unit, dataset)] for loss in losses
    ]
    return [pair for pairs in itertools.zip_longest(*swept) for pair in pairs if pair is not None]


def strength_and_rate(
    loss: Loss, strength: float, *, unit: str, batch_size: int, learning_rate: float
) -> tuple[float, float]:
    """The strength to call a loss with, and its learning rate, which in the reference's unit falls with the strength.

    Args:
      loss: Its name.
      strength: As the user says it.
      unit: "own", or "reference" if it is a constant of the reference.
      batch_size: Images in a step.
      learning_rate: Learning rate for small strengths.

    >>> strength_and_rate("gradient_norm", 1.0, unit="reference", batch_size=100, learning_rate=0.025)
    (10.0, 0.00025)
    """
    if unit == "own":
        return strength, learning_rate
    limit = RECIPES[loss].gentle_above
    rate = learning_rate if strength <= limit else learning_rate * limit / strength
    return losses.reference_strength(strength, batch_size) if loss == "gradient_norm" else strength, rate


def loss_function(loss: Loss, *, steps: int, unit: str, unroll: bool, norm: Norm = "l2") -> Any:
    """A loss as `pags_jax.training.Task` takes it; make it once, since each is compiled anew.

    Args:
      loss: Its name.
      steps: Number of steps of the attack, in adversarial training.
      unit: In the reference's, attacks share one ball among the batch.
      unroll: Write out the attack's steps instead of looping.
      norm: Norm of the attack's ball.
    """
    if loss != "adversarial":
        return losses.LOSSES[loss]
    scope = "batch" if unit == "reference" else "example"
    return partial(losses.adversarial, steps=steps, norm=norm, scope=scope, unroll=unroll)


def augmentation_of(augment: str, dataset: str) -> augmentation.Augmentation:
    """The augmentation of training images."""
    if augment == "auto":
        augment = "crop-flip" if dataset in COLOUR_PHOTOGRAPHS else "none"
    return AUGMENTATIONS[augment]


def flips_of(augment: Literal["auto", "none", "flip"], dataset: str) -> augmentation.Augmentation:
    """Random flips, or nothing; "auto" flips `COLOUR_PHOTOGRAPHS`."""
    flips = dataset in COLOUR_PHOTOGRAPHS if augment == "auto" else augment == "flip"
    return augmentation.flip if flips else augmentation.unchanged


def hyper(
    loss: Loss,
    strength: float,
    *,
    epochs: int,
    steps_per_epoch: int,
    batch_size: int,
    unit: Unit = "own",
    learning_rate: float = 0.05,
    schedule: Literal["drops", "linear"] = "drops",
    weight_decay: float = 5e-4,
    clip: float | None = 1.0,
) -> training.Hyper:
    """Hyper-parameters that vary over a sweep, as arrays, so that nothing is compiled again.

    Args:
      loss: Its name.
      strength: As the user says it.
      epochs: Number of epochs in all.
      steps_per_epoch: See `training.steps_per_epoch`.
      batch_size: Images in a step.
      unit: Unit of the strength; in the reference's the rate falls with it.
      learning_rate: The highest.
      schedule: The rate drops tenfold after 75 % and 87.5 % of the epochs, or rises for a fifth of the steps and then
        falls to zero, linearly.
      weight_decay: Weight decay of all parameters.
      clip: Longest gradient; None for no limit.

    >>> made = hyper("adversarial", 1.0, epochs=8, steps_per_epoch=10, batch_size=64, schedule="linear")
    >>> float(made.strength), float(made.warm_up), float(made.total_steps)
    (1.0, 16.0, 80.0)
    """
    strength, rate = strength_and_rate(loss, strength, unit=unit, batch_size=batch_size, learning_rate=learning_rate)
    drops, total = schedule == "drops", epochs * steps_per_epoch
    never = jnp.full(2, np.iinfo(np.int32).max)
    return training.Hyper(
        strength=jnp.float32(strength),
        learning_rate=jnp.float32(rate),
        milestones=training.milestones(epochs, steps_per_epoch) if drops else never,
        weight_decay=jnp.float32(weight_decay),
        clip=jnp.float32(np.inf if clip is None else clip),
        warm_up=jnp.float32(0 if drops else total // 5),
        total_steps=jnp.float32(np.inf if drops else total),
    )


class HeldOut(NamedTuple):
    """Images and labels on the device: to train on, to choose by, to measure on."""

    train: tuple[Any, Any]
    validation: tuple[Any, Any]
    test: tuple[Any, Any]


def hold_out(data: Images, share: float, *, seed: int, train_rows: int | None = None) -> HeldOut:
    """Holds out a share of the training images, drawn by the seed, and moves all images that are used to the device.

    Args:
      data: An image set.
      share: Share to hold out; one image at least.
      seed: Seed of the draw.
      train_rows: Train on so many of the others; by default on all.
    """
    order = np.random.default_rng(seed).permutation(len(data.train_y))
    held_out = max(1, round(share * len(order)))

    def part(x, y, order):
        return jnp.asarray(x[order]), jnp.asarray(y[order])

    return HeldOut(
        train=part(data.train_x, data.train_y, order[held_out:][:train_rows]),
        validation=part(data.train_x, data.train_y, order[:held_out]),
        test=part(data.test_x, data.test_y, np.arange(len(data.test_y))),
    )
