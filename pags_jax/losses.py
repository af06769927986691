r"""Losses that make classifiers robust, each ``loss(apply_fn, x, y, key, strength)``, a mean over the batch.

With ``l_i`` the cross-entropy of example ``i``, ``f`` the logits and ``u ~ N(0, I)``:

    cross_entropy            mean_i l_i
    gradient_norm            mean_i l_i + strength mean_i |d l_i / d x_i|^2
    smoothness               mean_i l_i + strength mean_i |f(x_i) - f(x_i + sigma u_i)|^2
    randomized_smoothing     mean_i l_i(x_i + strength u_i)
    adversarial              mean_i l_i(x_i + pgd(x_i; eps = strength)), in an L2 or Linf ball
    score_alignment          mean_i l_i + strength mean_i (1 - cos(d f_ic / d x_i, score(x_i | c)))

``score_alignment`` needs a score beside the images, so it is not in ``LOSSES``, with whose members any sweep can train.
``strength`` is traced, so that a sweep compiles one step. These losses also take ``has_aux=True``. The model then is
``apply_fn(x) -> (logits, aux)`` and the loss returns ``(value, aux)`` of the one forward pass that is trained on: the
noisy one of ``randomized_smoothing``, the attacked one of ``adversarial``, else the clean one. So running statistics
are updated once, and never by an attack. A loss of your own need not take ``has_aux``: see ``auxiliary.carrying_aux``.

Differs from the reference: P1 ``strength`` of ``gradient_norm`` is ``1e5 / N^2`` times the constant there, which
multiplies ``1e5 / N`` times the squared norm of the gradient of the batch's mean loss (``reference_strength``). P5 the
second forward pass of ``smoothness`` leaves running statistics alone; there clean and noisy ones are averaged.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from pags_jax.attacks import pgd
from pags_jax.balls import Norm, Scope
from pags_jax.gradients import Target, target_value
from pags_jax.images import as_images, as_labels, check_labels
from pags_jax.likelihood import log_prob

Value = Any


def cross_entropy(
    apply_fn: Callable[[Any], Any],
    x: Float[Array, "n ..."],
    y: Integer[Array, " n"],
    key: Array | None = None,
    strength: Any = 0.0,
    *,
    has_aux: bool = False,
) -> Value:
    """Mean cross-entropy; ``key`` and ``strength`` are there to have one signature.

    Args:
      apply_fn: Maps images to logits, or to ``(logits, aux)``.
      x: Images in [0, 1].
      y: Labels.
      key: Not used.
      strength: Not used.
      has_aux: Whether ``apply_fn`` and this loss return an auxiliary value too.

    Returns:
      A scalar, or ``(scalar, aux)``.

    >>> float(cross_entropy(lambda x: x, jnp.zeros((4, 10)), jnp.arange(4)).round(3))
    2.303
    """
    del key, strength
    x = as_images(x)
    check_labels(y, x)
    logits, aux = _with_aux(apply_fn, has_aux)(x)
    return _result(_mean_loss(logits, y), aux, has_aux)


def gradient_norm(
    apply_fn: Callable[[Any], Any],
    x: Float[Array, "n ..."],
    y: Integer[Array, " n"],
    key: Array | None,
    strength: Any,
    *,
    has_aux: bool = False,
) -> Value:
    """Cross-entropy and the squared norm of its input gradients (Drucker and LeCun 1992).

    Where the batch couples examples (batch statistics), ``d l_i / d x_i`` is ``d sum_j l_j / d x_i``. Arguments and
    result as for ``cross_entropy``; ``key`` is not used.

    >>> apply_fn = lambda x: jnp.stack([x[:, 0], -x[:, 0]], axis=1)
    >>> value = gradient_norm(apply_fn, jnp.zeros((3, 2)), jnp.zeros(3, int), None, 10.0)
    >>> float((value - jnp.log(2)).round(4))  # d l / d x = (-1, 0)
    10.0
    """
    del key
    x = as_images(x)
    check_labels(y, x)
    (logits, aux), pull = _split_vjp(_with_aux(apply_fn, has_aux), x)
    by_logit = jax.grad(lambda logits: -log_prob(logits, y).sum())(logits)
    penalty = jnp.sum(pull(by_logit) ** 2) / x.shape[0]
    return _result(_penalised(_mean_loss(logits, y), strength, penalty), aux, has_aux)


def smoothness(
    apply_fn: Callable[[Any], Any],
    x: Float[Array, "n ..."],
    y: Integer[Array, " n"],
    key: Array,
    strength: Any,
    *,
    sigma: Any = 0.1,
    has_aux: bool = False,
) -> Value:
    """Cross-entropy plus the squared change of the logits under noise of ``sigma``; other arguments as above."""
    x = as_images(x)
    check_labels(y, x)
    forward = _with_aux(apply_fn, has_aux)
    logits, aux = forward(x)
    moved, _ = forward(_with_noise(x, key, sigma))
    penalty = jnp.sum((logits - moved) ** 2) / x.shape[0]
    return _result(_penalised(_mean_loss(logits, y), strength, penalty), aux, has_aux)


def randomized_smoothing(
    apply_fn: Callable[[Any], Any],
    x: Float[Array, "n ..."],
    y: Integer[Array, " n"],
    key: Array,
    strength: Any,
    *,
    has_aux: bool = False,
) -> Value:
    """Cross-entropy under Gaussian noise of standard deviation ``strength`` (Cohen et al. 2019); others as above."""
    return cross_entropy(apply_fn, _with_noise(as_images(x), key, strength), y, has_aux=has_aux)


def adversarial(
    apply_fn: Callable[[Any], Any],
    x: Float[Array, "n ..."],
    y: Integer[Array, " n"],
    key: Array,
    strength: Any,
    *,
    steps: int = 10,
    norm: Norm = "l2",
    scope: Scope = "example",
    unroll: bool = False,
    has_aux: bool = False,
) -> Value:
    """Cross-entropy under an attack of radius ``strength`` in the given norm (Madry et al. 2018).

    ``steps``, ``scope`` and ``unroll`` are those of ``attacks.pgd``; the rest as above.
    """
    x, forward = as_images(x), _with_aux(apply_fn, has_aux)
    radius = {f"eps_{norm}": strength}
    delta = pgd(lambda x: forward(x)[0], x, y, key=key, **radius, steps=steps, scope=scope, unroll=unroll)
    return cross_entropy(apply_fn, x + delta, y, has_aux=has_aux)


def score_alignment(
    apply_fn: Callable[[Any], Any],
    x: Float[Array, "n ..."],
    y: Integer[Array, " n"],
    key: Array | None,
    strength: Any,
    *,
    score: Callable[[Any, Any], Any] | Float[Array, "n ..."],
    target: Target = "logit",
    any_class: bool = False,
    has_aux: bool = False,
) -> Value:
    """Cross-entropy plus one minus the cosine of input gradient and score (Ganz, Kawar and Elad, ICML 2023, equation
    3).

    The gradient is that of the model as it is trained. Batch statistics couple the images of a batch, and then it is
    not that of the model in use: train with ``training.Task(frozen=True)``.

    Args:
      apply_fn: As for ``cross_entropy``.
      x: Images.
      y: Labels.
      key: PRNG key of the classes that ``any_class`` draws; else not used.
      strength: Strength of the penalty, traced.
      score: ``score(x, labels)``, shaped as ``x``, such as ``scores.score`` of a conditional denoiser; or its values
        for these images and labels. Its scale does not matter, and it is not differentiated.
      target: Whose gradient is turned, see ``gradients``; ``alignment.PAIRINGS`` names the score of each.
      any_class: Align the gradient of a class drawn uniformly for each image, whose mean is the paper's penalty, over
        all classes, at the price of one; by default that of the label.
      has_aux: As for ``cross_entropy``.

    Returns:
      A scalar, or ``(scalar, aux)``. An image whose gradient or score is zero adds ``strength / n``, with no
      derivative of the penalty.

    Raises:
      ValueError: Values of another shape than ``x``; ``any_class`` with values alone, or without a key.

    >>> apply_fn = lambda x: jnp.stack([x[:, 0], -x[:, 0]], axis=1)
    >>> x, y = jnp.zeros((1, 2)), jnp.array([0])
    >>> value = score_alignment(apply_fn, x, y, None, 10.0, score=jnp.array([[3.0, 4.0]]))
    >>> float((value - jnp.log(2)).round(4))  # 10 (1 - 3 / 5)
    4.0
    """
    x = as_images(x)
    check_labels(y, x)
    if any_class and not callable(score):
        raise ValueError("`any_class` needs a `score(x, labels)` of any class, got values for the labels alone")
    (logits, aux), pull = _split_vjp(_with_aux(apply_fn, has_aux), x)
    classes = as_labels(y)
    if any_class:
        if key is None:
            raise ValueError("`any_class` draws a class for each image: give a `key`")
        classes = jax.random.randint(key, y.shape, 0, logits.shape[-1], jnp.int32)
    towards = jnp.asarray(score(x, classes) if callable(score) else score)
    if towards.shape != x.shape:
        raise ValueError(f"`score` must have the shape {x.shape} of `x`, got {towards.shape}")
    by_logit = jax.grad(lambda logits: jax.vmap(lambda f, c: target_value(f, c, target))(logits, classes).sum())(logits)
    cosines = _cosine(pull(by_logit), jax.lax.stop_gradient(towards).astype(x.dtype))
    return _result(_penalised(_mean_loss(logits, y), strength, 1 - cosines.mean()), aux, has_aux)


#: Every loss by its name, but for ``score_alignment``.
LOSSES = {loss.__name__: loss for loss in (cross_entropy, gradient_norm, smoothness, randomized_smoothing, adversarial)}


def reference_strength(constant: Any, batch_size: int) -> Any:
    """The ``strength`` of ``gradient_norm`` that the reference calls ``constant`` at this batch size.

    There the penalty is ``1e5 / N |d (mean_i l_i) / d x|^2 = 1e5 / N^3 sum_i |d l_i / d x_i|^2``, which is
    ``1e5 / N^2`` times the mean that is penalised here.

    >>> round(reference_strength(1.0, 128), 2)
    6.1
    """
    return 1e5 / batch_size**2 * constant


def _with_aux(apply_fn, has_aux: bool):
    return apply_fn if has_aux else lambda x: (apply_fn(x), None)


def _split_vjp(forward, x):
    logits, pull, aux = jax.vjp(forward, x, has_aux=True)
    return (logits, aux), lambda cotangent: pull(cotangent)[0]


def _mean_loss(logits: Array, y: Array) -> Array:
    return -log_prob(logits, y).mean()


def _penalised(loss: Array, strength: Any, penalty: Array) -> Array:
    return loss + jnp.asarray(strength, loss.dtype) * penalty.astype(loss.dtype)


def _cosine(a: Array, b: Array) -> Array:
    """As ``alignment.cosine``, but 0, with a derivative of 0, where a map is zero."""

    def unit(v):
        v = v.reshape(v.shape[0], -1)
        largest = jax.lax.stop_gradient(jnp.max(jnp.abs(v), 1, keepdims=True))  # The cosine does not know the scale.
        v = v / jnp.where(largest == 0, 1, largest)
        square = jnp.sum(v * v, 1, keepdims=True)
        return v / jnp.sqrt(jnp.where(square == 0, 1, square))

    return jnp.sum(unit(a) * unit(b), 1)


def _with_noise(x: Array, key: Array, sigma: Any) -> Array:
    return x + jnp.asarray(sigma, x.dtype) * jax.random.normal(key, x.shape, x.dtype)


def _result(value: Array, aux: Any, has_aux: bool) -> Value:
    return (value, aux) if has_aux else value
