"""Tasks of drawing: where each begins, how a classifier and a denoiser do it, and how well they did it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from scripts.harness import compiling, placement
from scripts.harness.lazy import jax, jnp, pags_jax
from scripts.pags import measuring

if TYPE_CHECKING:
    from scripts.harness.experiment import Row

TASKS = ("synthesis", "denoising", "in-painting", "counterfactual")
Network = tuple[Any, Any]
"""A denoiser's network and its variables."""
SAMPLE_SIGMA, REDRAWN_SIGMA = 20.0, 3.0
"""Noise levels, for images in [-1, 1], that samples and counterfactuals of the denoiser begin with."""


class Ready(NamedTuple):
    """What all models begin with.

    Attributes:
        truth: ``(n, h, w, c)`` test images in [0, 1].
        starts: For each task, the images that it begins with and the classes to lead to.
        known: Mask of the pixels that in-painting leaves as they are.
        gaussians: Gaussians of the classes, from which synthesis draws its first images.
        classes: Names of the classes.
        denoiser: The network that sets the ceiling.
        judge: A classifier that judges, or None.
    """

    truth: Any
    starts: dict[str, tuple[Any, Any]]
    known: Any
    gaussians: Any
    classes: tuple[str, ...]
    denoiser: Network
    judge: Any


class Made(NamedTuple):
    """Results of a task.

    Attributes:
        images: The results, in [0, 1].
        start: The images that they began as; None if that was noise.
        reached: Whether their classifier sees the class to lead to; None where no classifier drew them.
    """

    images: Any
    start: Any = None
    reached: Any = None


def ready_of(config: Any, sample: measuring.Sample, denoiser: Network, judge: Any) -> Ready:
    """The starts of all tasks, by the configuration of `scripts.pags.generation`."""
    x, y, count = sample.x, sample.y, len(sample.data.classes)
    n, height, width, channels = x.shape
    keys = jax.random.split(jax.random.key(config.seed), 2)
    known = pags_jax.generation.outside_square(keys[0], (n, height, width, channels), config.square)
    train = pags_jax.images.to_float(sample.data.train_x)
    gaussians = pags_jax.gaussians.fit(train, jnp.asarray(sample.data.train_y), classes=count, shrink=config.shrink)
    starts = {
        "synthesis": (x, jnp.arange(len(x), dtype=jnp.int32) % count),
        "denoising": (x + config.noise * jax.random.normal(keys[1], x.shape, x.dtype), y),
        "in-painting": (jnp.where(known, x, train.mean(0, keepdims=True)), y),
        "counterfactual": (x, (y + 1) % count),
    }
    return Ready(x, starts, known, gaussians, sample.data.classes, denoiser, judge)


def ascended(config: Any, ready: Ready, apply_fn: Any) -> dict[str, Made]:
    """What a classifier's gradients make of each task."""
    made, key = {}, jax.random.key(config.seed)
    for task, (start, y) in ready.starts.items():
        eps = jnp.float32(getattr(config, f"eps_{task.replace('-', '')}"))
        given = {"synthesis": ready.gaussians, "in-painting": ready.known}.get(task)
        found = _ascended(apply_fn, start, y, eps, key, given, task=task, steps=config.steps)
        made[task] = Made(jnp.clip(found.images, 0, 1), jnp.clip(found.start, 0, 1), found.reached)
    return made


@compiling.compiled("task", "steps")
def _ascended(apply_fn, start, y, eps, key, given, *, task, steps):
    generation, ascent = pags_jax.generation, {"eps_l2": eps, "steps": steps}
    if task == "synthesis":
        return generation.synthesize(apply_fn, given, y, key=key, **ascent)
    if task == "denoising":  # Towards what the model takes it for; noise leaves the range of pixels.
        return generation.denoise(apply_fn, start, bounds=None, **ascent)
    if task == "in-painting":
        return generation.inpaint(apply_fn, start, given, y, fill=start, **ascent)
    return generation.counterfactual(apply_fn, start, y, **ascent)


def drawn(config: Any, ready: Ready) -> dict[str, Made]:
    """What the denoiser makes of each task; counterfactuals are images under noise, drawn anew."""
    scores, made = pags_jax.scores, {}
    key = jax.random.key(config.seed + 1)
    levels, low = (
        scores.noise_schedule(config.sample_steps, sigma_max=sigma) for sigma in (SAMPLE_SIGMA, REDRAWN_SIGMA)
    )
    for task, (start, y) in ready.starts.items():
        of_class, x = scores.denoiser(*ready.denoiser, y), 2 * start - 1
        noise = jax.random.normal(key, x.shape, x.dtype)
        if task == "synthesis":
            images = scores.sample(of_class, noise, levels, step=_heun_step)
        elif task == "denoising":
            images = _denoised(scores.denoiser(*ready.denoiser), x, jnp.float32(2 * config.noise))
        elif task == "in-painting":
            images = pags_jax.sampling.inpaint(of_class, x, ready.known, levels, key=key, step=_heun_step)
        else:
            images = scores.sample(of_class, x / REDRAWN_SIGMA + noise, low, step=_heun_step)
        began = None if task == "synthesis" else jnp.clip(start, 0, 1)
        made[task] = Made(jnp.clip((images + 1) / 2, 0, 1), began)
    return made


@compiling.compiled()
def _denoised(denoise, x, sigma):
    return denoise(x, sigma)


@compiling.compiled()
def _heun_step(denoise, x, sigma, following):
    return pags_jax.scores.heun_step(denoise, x, sigma, following)


def measures(ready: Ready, task: str, made: Made) -> Row:
    """How well a task was done: means over images with their standard errors."""
    truth, y = ready.truth, ready.starts[task][1]
    row: Row = {"reached": None if made.reached is None else float(made.reached.mean())}
    for name, images in (("judged", made.images), ("judged_start", made.start)):
        known = ready.judge is not None and images is not None
        row[name] = float(_right(ready.judge, images, y).mean()) if known else None
    if task == "synthesis":  # Beside the next image of the same class.
        row |= mean_of("diversity", _lpips(made.images, jnp.roll(made.images, len(ready.classes), 0)))
    elif task != "counterfactual":
        mask = ~ready.known if task == "in-painting" else jnp.ones(truth.shape, bool)
        for name, found in (("start", made.start), ("result", made.images)):
            row |= mean_of(f"psnr_{name}", psnr(found, truth, mask)) | mean_of(f"lpips_{name}", _lpips(found, truth))
    return row


def psnr(a: Any, b: Any, mask: Any) -> Any:
    """Peak signal-to-noise ratio of pairs of images in [0, 1] inside a mask, in decibel.

    >>> import jax.numpy as jnp
    >>> psnr(jnp.full((1, 2, 2, 1), 0.1), jnp.zeros((1, 2, 2, 1)), jnp.ones((1, 2, 2, 1), bool)).round(3).tolist()
    [20.0]
    """
    return -10 * jnp.log10(jnp.mean((a - b) ** 2, (1, 2, 3), where=jnp.broadcast_to(mask, a.shape)))


def mean_of(name: str, values: Any) -> Row:
    """Mean and standard error over the images that have a value, as two columns."""
    values = placement.on_host(values)
    return measuring.summary(name, values, np.isfinite(values))


@compiling.compiled()
def _right(judge, x, y):
    return pags_jax.evaluation.correct(judge, x, y)


def _lpips(a: Any, b: Any) -> Any:
    return _distance(2 * a - 1, 2 * b - 1, pags_jax.datasets.lpips_weights.load_lpips_weights())


@compiling.compiled(images=False)
def _distance(a, b, weights):
    return pags_jax.alignment.lpips(a, b, weights=weights)
