"""Drawing tasks: their starts, their results by a classifier's gradient or a denoiser, and the quality of these.

Synthesis, denoising, in-painting, counterfactuals and image-to-image (of a sketch, an image) as in Santurkar et al.,
*Image Synthesis with a Single (Robust) Classifier* (2019); see `generation` for the classifier and `scores` for the
denoiser, which was trained for this and sets the ceiling. Images are in [0, 1].
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from pags_jax import alignment, evaluation, gaussians, generation, sampling, scores
from pags_jax.chunks import check_counts
from pags_jax.images import as_images
from pags_jax.means import mean_and_error

TASKS = ("synthesis", "denoising", "in-painting", "counterfactual", "image-to-image")
SAMPLE_SIGMA, REDRAWN_SIGMA = 20.0, {"counterfactual": 3.0, "image-to-image": 1.0}
"""Noise levels, for images in [-1, 1], that samples of a denoiser begin with, and images that it draws anew."""
SHADES = 5
"""Values that a pixel of a sketch may have."""


class Tasks(NamedTuple):
    """What all models begin with; see ``tasks_of``.

    Attributes:
      truth: ``(n, h, w, c)`` images.
      starts: For each task, the images that it begins with and the classes to lead to.
      known: Mask of the pixels that in-painting leaves as they are.
      gaussians: Gaussians of the classes, from which synthesis draws its first images.
      noise: Standard deviation of the noise that denoising begins with.
      classes: Number of classes.
    """

    truth: Array
    starts: Mapping[str, tuple[Array, Array]]
    known: Array
    gaussians: gaussians.ClassGaussians
    noise: float
    classes: int


class Drawn(NamedTuple):
    """Results of a task.

    Attributes:
      images: The results.
      start: The images that they began as; None if that was noise.
      reached: Whether their classifier sees the class to lead to; None where no classifier drew them.
    """

    images: Array
    start: Any = None
    reached: Any = None


def tasks_of(
    x: Float[Array, "n h w c"], y: Array, train_x: Float[Array, "m h w c"], train_y: Array, *, classes: int,
    key: Array, noise: float, square: int, shrink: int,
) -> Tasks:  # fmt: skip
    """The starts of all tasks: draws, noisy images, images without a square, of another class, and sketches.

    Args:
      x: Images to draw again.
      y: Their labels.
      train_x: Images that the classes' Gaussians and the mean image are of.
      train_y: Their labels.
      classes: Number of classes.
      key: Draws squares and noise.
      noise: Standard deviation of the noise that is removed.
      square: Side of the square that is filled in, in pixels.
      shrink: Side of the blocks of pixels whose means have a full covariance, see ``gaussians.fit``, and of those that
        sketches are made of.

    Raises:
      ValueError: A square or blocks that do not fit the images.
    """
    for_square, for_noise = jax.random.split(key, 2)
    n, height, width, channels = x.shape
    known = generation.outside_square(for_square, (n, height, width, channels), square)
    starts = {
        "synthesis": (x, jnp.arange(len(x), dtype=jnp.int32) % classes),
        "denoising": (x + noise * jax.random.normal(for_noise, x.shape, x.dtype), y),
        "in-painting": (jnp.where(known, x, train_x.mean(0, keepdims=True)), y),
        "counterfactual": (x, (y + 1) % classes),
        "image-to-image": (sketch(x, shrink), y),
    }
    fitted = gaussians.fit(train_x, train_y, classes=classes, shrink=shrink)
    return Tasks(x, starts, known, fitted, noise, classes)


def sketch(x: Float[Array, "n h w c"], block: int) -> Float[Array, "n h w c"]:
    """Images as if painted with a broad brush: each square block has its mean, rounded to one of ``SHADES`` values.

    Args:
      x: Images in [0, 1].
      block: Side of the blocks, in pixels; a divisor of height and width.

    Raises:
      ValueError: No images, or blocks that do not fit them.

    >>> sketch(jnp.array([0.1, 0.3, 0.9, 0.9]).reshape(1, 2, 2, 1), 2)[0, :, :, 0].tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """
    x = as_images(x)
    check_counts(block=block)
    if x.ndim != 4 or x.shape[1] % block or x.shape[2] % block:
        raise ValueError(f"`block` must divide height and width of images (n, h, w, c), got {block} for {x.shape}")
    rounded = jnp.rint(gaussians.shrunken(x, block) * (SHADES - 1)) / (SHADES - 1)
    return jnp.repeat(jnp.repeat(rounded, block, 1), block, 2)


def ascend(
    apply_fn: Callable[[Any], Any], start: Array, y: Array, eps_l2: Any, key: Array, given: Any, *, task: str,
    steps: int,
) -> generation.Generated:  # fmt: skip
    """One task by a classifier's gradient; best under a ``jit`` of your own, with ``task`` and ``steps`` static.

    Args:
      apply_fn: Maps images to logits.
      start: Images that the task begins with.
      y: Classes to lead to.
      eps_l2: Radius of the ascent.
      key: Draws the first images of synthesis.
      given: The Gaussians for synthesis, the mask for in-painting, else None.
      task: One of ``TASKS``.
      steps: Number of steps of the ascent.
    """
    ascent: dict[str, Any] = {"eps_l2": eps_l2, "steps": steps}
    if task == "synthesis":
        return generation.synthesize(apply_fn, given, y, key=key, **ascent)
    if task == "denoising":  # Towards what the model takes it for; noise leaves the range of pixels.
        return generation.denoise(apply_fn, start, bounds=None, **ascent)
    if task == "in-painting":
        return generation.inpaint(apply_fn, start, given, y, fill=start, **ascent)
    return generation.counterfactual(apply_fn, start, y, **ascent)


def by_classifier(
    apply_fn: Callable[[Any], Any], tasks: Tasks, eps_l2: Mapping[str, float], *, key: Array, steps: int,
    ascend: Callable[..., generation.Generated] = ascend,
) -> dict[str, Drawn]:  # fmt: skip
    """Solves each task by a classifier's gradient.

    Args:
      apply_fn: Maps images to logits.
      tasks: Tasks from ``tasks_of``.
      eps_l2: Radius of each task's ascent.
      key: Draws the first images of synthesis.
      steps: Number of steps of each ascent.
      ascend: ``ascend``, best under a ``jit`` of your own.
    """
    made = {}
    for task, (start, y) in tasks.starts.items():
        given = {"synthesis": tasks.gaussians, "in-painting": tasks.known}.get(task)
        found = ascend(apply_fn, start, y, jnp.float32(eps_l2[task]), key, given, task=task, steps=steps)
        made[task] = Drawn(jnp.clip(found.images, 0, 1), jnp.clip(found.start, 0, 1), found.reached)
    return made


def by_denoiser(
    denoiser: Callable[..., scores.Denoiser], tasks: Tasks, *, key: Array, steps: int,
    step: Callable[..., Any] = scores.heun_step, apply: Callable[..., Any] = scores.denoised,
) -> dict[str, Drawn]:  # fmt: skip
    """Solves each task by a denoiser; counterfactuals and sketches are put under noise and drawn anew.

    For sketches that is SDEdit (Meng et al., ICLR 2022).

    Args:
      denoiser: ``denoiser(labels)`` gives that of these classes, and of all images without labels.
      tasks: Tasks from ``tasks_of``.
      key: Draws noise.
      steps: Noise levels that samples pass through, at least 2.
      step: ``scores.heun_step``, best under a ``jit`` of your own.
      apply: Calls a denoiser, likewise.
    """
    made = {}
    levels = scores.noise_schedule(steps, sigma_max=SAMPLE_SIGMA)
    for task, (start, y) in tasks.starts.items():
        of_class, x = denoiser(y), 2 * start - 1
        noise = jax.random.normal(key, x.shape, x.dtype)
        if task == "synthesis":
            images = scores.sample(of_class, noise, levels, step=step)
        elif task == "denoising":
            images = apply(denoiser(), x, jnp.float32(2 * tasks.noise))
        elif task == "in-painting":
            images = sampling.inpaint(of_class, x, tasks.known, levels, key=key, step=step)
        else:
            low = scores.noise_schedule(steps, sigma_max=REDRAWN_SIGMA[task])
            images = scores.sample(of_class, x / REDRAWN_SIGMA[task] + noise, low, step=step)
        began = None if task == "synthesis" else jnp.clip(start, 0, 1)
        made[task] = Drawn(jnp.clip((images + 1) / 2, 0, 1), began)
    return made


def quality(
    tasks: Tasks, task: str, drawn: Drawn, *, lpips: Callable[..., Array] = alignment.lpips
) -> dict[str, Float[Array, " n"]]:
    """Measures how well a task was done: by the name of each measure, its values for the images.

    Of synthesis ``diversity``: LPIPS between results for one class. Of counterfactuals, which have no true image,
    nothing. Of the others ``psnr_start`` and ``psnr_result`` in decibel (in-painting's inside the square alone),
    ``lpips_start`` and ``lpips_result``, before and after, all against the true images.

    Args:
      tasks: Tasks from ``tasks_of``.
      task: Its name.
      drawn: Its results.
      lpips: ``alignment.lpips``, best under a ``jit`` of your own.
    """
    if task == "synthesis":  # Beside the next image of the same class.
        return {"diversity": lpips(2 * drawn.images - 1, 2 * jnp.roll(drawn.images, tasks.classes, 0) - 1)}
    if task == "counterfactual":
        return {}
    mask, found = ~tasks.known if task == "in-painting" else jnp.ones(tasks.truth.shape, bool), {}
    for name, images in (("start", drawn.start), ("result", drawn.images)):
        found[f"psnr_{name}"] = psnr(images, tasks.truth, mask)
        found[f"lpips_{name}"] = lpips(2 * images - 1, 2 * tasks.truth - 1)
    return found


def measures(
    tasks: Tasks, task: str, drawn: Drawn, *, judge: Callable[[Any], Any] | None = None,
    lpips: Callable[..., Array] = alignment.lpips, correct: Callable[..., Array] = evaluation.correct,
) -> dict[str, float | None]:  # fmt: skip
    """How well a task was done, in numbers; None where one is not known.

    Args:
      tasks: Tasks from ``tasks_of``.
      task: Its name.
      drawn: Its results.
      judge: A classifier trained otherwise, which maps images to logits.
      lpips: ``alignment.lpips``, best under a ``jit`` of your own.
      correct: ``evaluation.correct``, likewise.

    Returns:
      ``reached``: the share of the results in which their own classifier sees the class to lead to; ``judged`` and
      ``judged_start``: the same by the judge, of the results and of their starts; and means of ``quality`` over the
      images that have it, with their standard errors (``NAME_error``).
    """
    found: dict[str, float | None] = {"reached": None if drawn.reached is None else float(drawn.reached.mean())}
    for name, images in (("judged", drawn.images), ("judged_start", drawn.start)):
        known = judge is not None and images is not None
        found[name] = float(correct(judge, images, tasks.starts[task][1]).mean()) if known else None
    for name, values in jax.device_get(quality(tasks, task, drawn, lpips=lpips)).items():
        found |= mean_and_error(name, values, np.isfinite(values))
    return found


def psnr(a: Float[Array, "n h w c"], b: Float[Array, "n h w c"], mask: Bool[Array, "..."]) -> Float[Array, " n"]:
    """Peak signal-to-noise ratio of pairs of images in [0, 1] inside a mask, in decibel.

    >>> psnr(jnp.full((1, 2, 2, 1), 0.1), jnp.zeros((1, 2, 2, 1)), jnp.ones((1, 2, 2, 1), bool)).round(3).tolist()
    [20.0]
    """
    return -10 * jnp.log10(jnp.mean((a - b) ** 2, (1, 2, 3), where=jnp.broadcast_to(mask, a.shape)))
