r"""Images by projected ascent of a classifier's log-probability (Santurkar et al., NeurIPS 2019).

*Image Synthesis with a Single (Robust) Classifier* leads an image towards a class,

    x <- project(x + alpha g / |g|),    g = grad_x log p(y | x),

in a ball around the start and in the range of pixels. It is the attack ``attacks.pgd`` towards the class. With a robust
model the result looks like the class, with an undefended one like noise. The task's name depends on the start:

    synthesize       a draw from a Gaussian fitted to the class, whose covariance is of shrunken images
    counterfactual   an image of any class; with a drawing or a collage, the paper's image-to-image translation
    denoise          a noisy image, towards its label or the class that the model predicts
    inpaint          an image with pixels missing, of which only these move

An image is returned if its log-probability is higher than at the start; otherwise the start itself is. The result holds
both values, whether the model now predicts the class, and whether a gradient was zero or not finite on the way. The
gradient of the smoothed classifier is that of ``wrappers.smoothed(apply_fn, ...)``, passed as the model.

Radii and step lengths are in the units of the images, one or one for each, and traced. All of it is pure and meant to
be called under ``jit``, where one program serves all radii, step lengths, classes and keys of a shape.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from pags_jax.attacks import pgd
from pags_jax.balls import pixel_bounds
from pags_jax.chunks import check_counts
from pags_jax.gaussians import ClassGaussians, draw
from pags_jax.images import as_images, as_labels, as_mask, as_wide, check_array, check_batch, check_classes
from pags_jax.likelihood import log_prob
from pags_jax.margins import correct_logits
from pags_jax.per_example import check_classifier

ApplyFn = Callable[[Any], Any]


class Generated(NamedTuple):
    """Images, and how the model sees them.

    Attributes:
      images: The results, shaped as ``start``.
      start: Where they began.
      log_prob_start: The log-probability of the class at the start.
      log_prob: The same at the results; never lower.
      reached: Whether the class's logit is the largest at the results, and all are finite.
      no_gradient: Whether a gradient was zero or not finite somewhere on the way, so that the image stood still.
    """

    images: Float[Array, "n ..."]
    start: Float[Array, "n ..."]
    log_prob_start: Float[Array, " n"]
    log_prob: Float[Array, " n"]
    reached: Bool[Array, " n"]
    no_gradient: Bool[Array, " n"]


def synthesize(
    apply_fn: ApplyFn,
    gaussians: ClassGaussians,
    y: Int[Array, " n"],
    *,
    key: Array,
    bounds: tuple[Any, Any] | None = (0, 1),
    **ascent: Any,
) -> Generated:
    """Images of given classes, from draws of their Gaussians.

    Args:
      apply_fn: Maps images to logits of two classes at least, each image by itself.
      gaussians: Gaussians of each class, by ``gaussians.fit``.
      y: The classes to make images of.
      key: PRNG key of the draws, required.
      bounds: Lowest and highest value of pixels, each one number or one for each channel, to which draws are cut; None
        where there are none.
      **ascent: As for ``counterfactual``.

    Returns:
      One image for each class that was asked for.

    Raises:
      ValueError: As ``counterfactual``, or classes without a Gaussian.

    >>> from pags_jax import gaussians
    >>> x = jnp.concatenate([jnp.zeros((2, 2, 2, 1)), jnp.ones((2, 2, 2, 1))])
    >>> fitted = gaussians.fit(x, jnp.array([0, 0, 1, 1]), classes=2, shrink=2)
    >>> model = lambda x: jnp.stack([-x.sum((1, 2, 3)), x.sum((1, 2, 3))], axis=1)
    >>> made = synthesize(model, fitted, jnp.array([1, 0]), key=jax.random.key(0), eps_l2=0.5, steps=4)
    >>> made.images.mean((1, 2, 3)).tolist(), made.reached.tolist()
    ([1.0, 0.0], [True, False])
    """
    start = draw(gaussians, y, key=key)
    if bounds is not None:
        start = jnp.clip(start, *(end.astype(start.dtype) for end in pixel_bounds(bounds, start, inside=False)))
    return counterfactual(apply_fn, start, y, bounds=bounds, **ascent)


def counterfactual(
    apply_fn: ApplyFn,
    x: Float[Array, "n ..."],
    y: Int[Array, " n"],
    *,
    eps_l2: Any = None,
    eps_linf: Any = None,
    steps: int,
    step_size: Any = None,
    bounds: tuple[Any, Any] | None = (0, 1),
    unroll: bool = False,
) -> Generated:
    """Changes images towards other classes, within a radius.

    Args:
      apply_fn: Maps images to logits of two classes at least, each image by itself.
      x: Images in [0, 1].
      y: The classes to lead to.
      eps_l2: Radius in the Euclidean norm, traced: one, or one for each image.
      eps_linf: Radius in the largest absolute value, likewise; exactly one of the two is given.
      steps: Number of steps.
      step_size: Length of a step, one or one for each image; by default ``2 eps / steps``.
      bounds: Lowest and highest value of pixels, each one number or one for each channel; None where there are none.
      unroll: Write the steps out instead of looping: twice as fast on CPUs, and slower to compile.

    Returns:
      Images within the radius of ``x``, and in the bounds.

    Raises:
      ValueError: A radius, count, step, bound, image, class or model that does not fit, or a model in training.

    >>> model = lambda x: jnp.stack([-x[:, 0], x[:, 0]], axis=1)
    >>> made = counterfactual(model, jnp.array([[0.25, 0.5]]), jnp.array([1]), eps_l2=0.5, steps=4)
    >>> made.images.tolist()
    [[0.75, 0.5]]
    """
    x = as_images(x)
    check_classifier(apply_fn, x, y)
    ascent = {"steps": steps, "step_size": step_size, "bounds": bounds, "unroll": unroll}
    return _towards(apply_fn, x, y, eps_l2=eps_l2, eps_linf=eps_linf, **ascent)


def denoise(apply_fn: ApplyFn, x: Float[Array, "n ..."], y: Int[Array, " n"] | None = None, **ascent: Any) -> Generated:
    """Leads noisy images towards their class; for noise of standard deviation ``s``, in a ball of about ``s sqrt(d)``.

    Args:
      apply_fn: As for ``counterfactual``.
      x: Noisy images, inside of the bounds.
      y: Their labels; by default the class that the model takes each for.
      **ascent: As for ``counterfactual``.

    Returns:
      Images within the radius of the noisy ones.

    Raises:
      ValueError: As ``counterfactual``.
    """
    x = as_images(x)
    if y is None:
        check_classifier(apply_fn, x)
        y = jnp.argmax(apply_fn(x), 1).astype(jnp.int32)
    return counterfactual(apply_fn, x, y, **ascent)


def inpaint(
    apply_fn: ApplyFn,
    x: Float[Array, "n ..."],
    known: Any,
    y: Int[Array, " n"],
    *,
    fill: Any = 0.5,
    **ascent: Any,
) -> Generated:
    """Fills in pixels of images of given classes; the known ones stay as they are, bit for bit.

    Args:
      apply_fn: As for ``counterfactual``.
      x: Images; what is not known in them is not looked at.
      known: Which pixels are kept: booleans of a shape that broadcasts to that of ``x``; see ``outside_square``.
      y: Their labels.
      fill: What unknown pixels begin with: one number, or images shaped as ``x``, such as means of the classes.
      **ascent: As for ``counterfactual``.

    Returns:
      Images equal to ``x`` where it is known, and within the radius of ``fill`` elsewhere.

    Raises:
      ValueError: As ``counterfactual``, or a mask or a filling that does not fit.

    >>> model = lambda x: jnp.stack([-x.sum(1), x.sum(1)], axis=1)
    >>> x, known = jnp.array([[0.25, 9.0]]), jnp.array([[True, False]])
    >>> inpaint(model, x, known, jnp.array([1]), eps_l2=0.25, steps=1).images.tolist()
    [[0.25, 0.75]]
    """
    check_batch(x)  # And not what is unknown: it may be NaN.
    x = jnp.asarray(x)
    known = as_mask("known", known, x)
    fill = jnp.asarray(check_array("`fill`", fill, "numbers", jnp.floating, jnp.integer))
    if fill.shape not in ((), x.shape):
        raise ValueError(f"`fill` must be one number or have the shape {x.shape} of `x`, got {fill.shape}")
    start = as_images(jnp.where(known, x, jnp.broadcast_to(fill.astype(x.dtype), x.shape)))
    check_classifier(apply_fn, start, y)

    def of_unknown(images):
        return apply_fn(jnp.where(known, start, images))

    found = _towards(of_unknown, start, y, **ascent)
    # A sum with zero makes 0 of -0, and of numbers so small that the machine rounds them off.
    return found._replace(images=jnp.where(known, start, found.images))


def outside_square(key: Array, shape: tuple[int, int, int, int], side: int) -> Bool[Array, "n h w 1"]:
    """A mask for ``inpaint`` whose unknown pixels are one square in each image, at a place drawn for it.

    Args:
      key: PRNG key, required.
      shape: Shape of the images, ``(n, h, w, c)``.
      side: Side of the square, in pixels, from 1 to the images' own.

    Returns:
      True where pixels are known.

    Raises:
      ValueError: Another side.

    >>> int((~outside_square(jax.random.key(0), (1, 8, 8, 3), 3)).sum())
    9
    """
    if len(shape) != 4:
        raise ValueError(f"`shape` must be that of images, (n, h, w, c), got {shape}")
    n, height, width, _ = shape
    check_counts(min(height, width), side=side)
    keys = jax.random.split(key)
    rows, columns = (
        jax.random.randint(k, (n, 1), 0, size - side + 1) for k, size in zip(keys, (height, width), strict=True)
    )
    down, across = (
        (jnp.arange(size)[None] >= first) & (jnp.arange(size)[None] < first + side)
        for first, size in ((rows, height), (columns, width))
    )
    return ~(down[:, :, None] & across[:, None, :])[..., None]


def _within(start: Array, delta: Array) -> Array:
    """``start + delta``, of which no pixel is further from ``start`` than ``delta`` says, as rounding may take it."""
    moved = start + delta
    outside = jnp.abs(as_wide(moved) - as_wide(start)) > jnp.abs(as_wide(delta))
    return jnp.where(outside, jnp.nextafter(moved, start), moved)


def _towards(apply_fn: ApplyFn, start: Array, y: Any, **ascent: Any) -> Generated:
    """The ascent, and the better of its two ends; ``apply_fn`` is called with as many images as there are."""
    ascent = {"bounds": (0, 1)} | ascent
    check_classes(apply_fn, start, y)
    target = as_labels(y)
    other = jnp.equal(target, 0).astype(jnp.int32)  # Which class it leads away from does not matter.
    still = jax.lax.optimization_barrier(jnp.zeros_like(start))  # Or XLA folds what follows of it, pixel by pixel.
    found = pgd(apply_fn, start, other, targets=target, key=None, start=still, with_outcome=True, **ascent)
    moved = _within(start, found.delta)
    logits = [as_wide(apply_fn(images)) for images in (start, moved)]
    before, after = (log_prob(values, target) for values in logits)
    rose = after > before
    images, final_logits = (
        jnp.where(rose.reshape(-1, *(1,) * (new.ndim - 1)), new, old) for old, new in ((start, moved), logits)
    )
    return Generated(
        images, start, before, jnp.where(rose, after, before), correct_logits(final_logits, target), found.no_gradient
    )
