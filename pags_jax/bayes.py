r"""Synthetic images whose posterior, gradient and tangent space are closed forms: the oracle of every measure here.

An image has coordinates ``t = (u, v)``. Its label ``y`` decides how the *signal* ``u`` is distributed, and says nothing
of the *distractor* ``v``:

    p(y, m) = weights_ym,     u | y, m ~ N(means_ym, signal_std^2 I),     v ~ N(0, distractor_std^2 I)
    x = phi(t) + e,           e ~ N(0, noise^2 I) within the normal space of the manifold at phi(t)

The manifold is a plane or a product of circles of one radius ``r``, in a random orthonormal frame ``a_j, b_j``:

    linear    phi(t) = 1/2 + sum_j t_j a_j
    curved    phi(t) = 1/2 + sum_j r sin(t_j / r) a_j + r (cos(t_j / r) - 1) b_j

Both are isometric: the vectors ``tau_j = d phi / d t_j`` are orthonormal at every ``t``. The point of the manifold that
is nearest to ``x`` has the coordinates ``t_j(x) = a_j.(x - 1/2)``, or on circles

    t_j(x) = r atan2(a_j.(x - 1/2), r + b_j.(x - 1/2)),       d t_j / d x = (r / rho_j) tau_j(t(x))

with ``rho_j`` the distance of ``x`` from the centre of its circle, ``r`` on the manifold. Noise along normals leaves
nearest points where they are, so that ``t(x)`` are the coordinates that ``x`` was made from, and

    log p(y | x) = log p(y | u(x))

is the Bayes-optimal model, smooth off the manifold, too (but for the axes of the circles). By the chain rule its
gradient combines those ``tau_j`` that belong to the signal: it has no share off the manifold, and none in the
distractor. That is Theorem 2 of Srinivas et al. (2023); by their Theorem 1 a model resists noise off the manifold,
relative to noise in all directions, as far as its gradient has no share there.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from pags_jax.images import as_labels, check_classes, check_images, check_labels, is_traced
from pags_jax.manifold import project

_einsum = partial(jnp.einsum, precision="highest")  # Exact on accelerators, too.


class Problem(NamedTuple):
    """A distribution of labelled images, a pytree; made by ``linear`` or ``curved``.

    Attributes:
      means: Means of the signal.
      weights: Probability of each class and mode.
      signal_std: Standard deviation of the signal around each mean.
      distractor_std: Standard deviation of the distractor.
      noise: Standard deviation off the manifold, in every normal direction.
      frame: Orthonormal images, one for each coordinate, and on circles then a second one for each.
      radius: Radius of the circles; None for a plane.
    """

    means: Float[Array, "classes modes signal"]
    weights: Float[Array, "classes modes"]
    signal_std: Float[Array, ""]
    distractor_std: Float[Array, ""]
    noise: Float[Array, ""]
    frame: Float[Array, "rows ..."]
    radius: Float[Array, ""] | None

    @property
    def dimension(self) -> int:
        """Dimension of the manifold: coordinates of the signal, then of the distractor."""
        return self.frame.shape[0] // (1 if self.radius is None else 2)


class Sample(NamedTuple):
    """Images, their labels, and the coordinates that they were made from."""

    x: Float[Array, "n ..."]
    y: Integer[Array, " n"]
    coordinates: Float[Array, "n dimension"]


def linear(
    shape: Sequence[int],
    means: Any,
    *,
    key: Array,
    distractors: int,
    signal_std: Any,
    distractor_std: Any = 1.0,
    noise: Any = 0.0,
    weights: Any = 1.0,
) -> Problem:
    """Images on a plane through mid-grey.

    Args:
      shape: Shape of one image, such as ``(24,)`` or ``(8, 8, 1)``.
      means: Means of the signal, ``(classes, modes, signal)``, in the units of images; they decide the dtype.
      key: PRNG key of the frame, required.
      distractors: Dimension of the distractor.
      signal_std: Standard deviation around each mean; one for all, which bounds the gradient of the posterior.
      distractor_std: Standard deviation of the distractor.
      noise: Standard deviation off the manifold.
      weights: Weights of each class and mode, ``(classes, modes)``, in proportion; all alike by default.

    Raises:
      ValueError: Shapes that do not fit, too few pixels, or a scale that is not positive.

    >>> problem = linear((4, 4, 1), [[[-1.0]], [[1.0]]], key=jax.random.key(0), distractors=2, signal_std=0.5)
    >>> x, y, t = sample(problem, 5, key=jax.random.key(1))
    >>> x.shape, t.shape, tangent_basis(problem, x).shape, log_posterior(problem, x).shape
    ((5, 4, 4, 1), (5, 3), (5, 3, 4, 4, 1), (5, 2))
    """
    means = jnp.asarray(means)
    if means.ndim != 3 or not jnp.issubdtype(means.dtype, jnp.floating):
        raise ValueError(f"`means` must be floats (classes, modes, signal), got {means.dtype} of {means.shape}")
    weights = jnp.broadcast_to(jnp.asarray(weights, means.dtype), means.shape[:2])
    scales = {"signal_std": signal_std, "distractor_std": distractor_std, "noise": noise}
    for name, value in {"weights": weights, **scales}.items():
        if not is_traced(value) and not (np.all(np.asarray(value) > 0) or (name == "noise" and value == 0)):
            raise ValueError(f"`{name}` must be {'at least' if name == 'noise' else 'above'} 0, got {value}")
    if distractors < 0:
        raise ValueError(f"`distractors` must be at least 0, got {distractors}")
    frame = _extended(jnp.zeros((0, *shape), means.dtype), means.shape[2] + distractors, key)
    scales = {name: jnp.asarray(scale, means.dtype) for name, scale in scales.items()}
    return Problem(means, weights / weights.sum(), **scales, frame=frame, radius=None)


def curved(problem: Problem, *, radius: Any, key: Array) -> Problem:
    """Rolls the plane of a problem up to a product of circles, one for each coordinate, that touches it at mid-grey.

    Args:
      problem: Problem from ``linear``.
      radius: Radius of the circles. Half of one must hold the outermost mean and 6 standard deviations, so that nothing
        wraps around; and the radius 6 times the noise, so that it does not reach an axis.
      key: PRNG key of the directions in which circles bend, required.

    Raises:
      ValueError: A problem that is curved, too few pixels, or a radius that is too small.
    """
    if problem.radius is not None:
        raise ValueError(f"this problem is curved already, with the radius {problem.radius}")
    reach = jnp.maximum(jnp.abs(problem.means).max() + 6 * problem.signal_std, 6 * problem.distractor_std)
    smallest = jnp.maximum(reach / jnp.pi, 6 * problem.noise)
    if not is_traced(smallest, radius) and not radius >= smallest:
        raise ValueError(f"`radius` must be at least {smallest:g} for this distribution, got {radius}")
    frame = _extended(problem.frame, problem.dimension, key)
    return problem._replace(frame=frame, radius=jnp.asarray(radius, frame.dtype))


def sample(problem: Problem, n: int, *, key: Array) -> Sample:
    """Draws ``n`` labelled images; ``key`` is required."""
    for_label, for_coordinates, for_noise = jax.random.split(key, 3)
    modes, signal = problem.means.shape[1:]
    drawn = jax.random.categorical(for_label, jnp.log(problem.weights).reshape(-1), shape=(n,))
    t = jax.random.normal(for_coordinates, (n, problem.dimension), problem.means.dtype)
    u = problem.means.reshape(-1, signal)[drawn] + problem.signal_std * t[:, :signal]
    t = jnp.concatenate([u, problem.distractor_std * t[:, signal:]], axis=1)
    x = embed(problem, t)
    noise = problem.noise * jax.random.normal(for_noise, x.shape, x.dtype)
    normal = noise - project(tangent_basis(problem, x), noise)
    return Sample(x + normal, (drawn // modes).astype(jnp.int32), t)


def embed(problem: Problem, t: Float[Array, "n dimension"]) -> Float[Array, "n ..."]:
    """The images ``phi(t)`` on the manifold: a decoder."""
    places = t
    if problem.radius is not None:
        angle = t / problem.radius
        places = problem.radius * jnp.concatenate([jnp.sin(angle), jnp.cos(angle) - 1], axis=1)
    return 0.5 + _einsum("nr,r...->n...", places, problem.frame)


def coordinates(problem: Problem, x: Float[Array, "n ..."]) -> Float[Array, "n dimension"]:
    """Coordinates ``t(x)`` of the nearest point of the manifold, those of the signal first: an encoder."""
    return _chart(problem, x)[0]


def tangent_basis(problem: Problem, x: Float[Array, "n ..."]) -> Float[Array, "n dimension ..."]:
    """Orthonormal basis ``tau_j`` of the tangent space at the nearest point, the signal's vectors first."""
    return _chart(problem, x)[1].reshape(x.shape[0], problem.dimension, *x.shape[1:])


def distractor_basis(problem: Problem, x: Float[Array, "n ..."]) -> Float[Array, "n distractors ..."]:
    """The vectors of ``tangent_basis`` along which the distractor changes."""
    return tangent_basis(problem, x)[:, problem.means.shape[-1] :]


def log_posterior(problem: Problem, x: Float[Array, "n ..."]) -> Float[Array, "n classes"]:
    """``log p(y | x)`` of every class: the Bayes-optimal model, an ``apply_fn`` once the problem is bound."""
    u = coordinates(problem, x)[:, : problem.means.shape[-1]]
    return jax.nn.log_softmax(jax.nn.logsumexp(_log_joint(problem, u, problem.signal_std**2), 2), 1)


def gradient(problem: Problem, x: Float[Array, "n ..."], y: Integer[Array, " n"]) -> Float[Array, "n ..."]:
    """``d log p(y | x) / d x`` of the Bayes-optimal model, in closed form.

    With ``m_k`` the mean of class ``k``'s modes, weighted by their probabilities given ``u`` and ``k``,

        d log p(y | u) / d u = sum_k p(k | u) (m_y - m_k) / signal_std^2

    multiplies ``d u / d x`` of the module. No term cancels another where the model is sure.
    """
    check_labels(y, x)
    check_classes(partial(log_posterior, problem), x, y)
    (t, tangents, lengths), signal = _chart(problem, x), problem.means.shape[-1]
    joint = _log_joint(problem, t[:, :signal], problem.signal_std**2)
    posterior = jax.nn.softmax(jax.nn.logsumexp(joint, 2), 1)
    of_class = _einsum("nkm,kms->nks", jax.nn.softmax(joint, 2), problem.means)
    of_label = jnp.take_along_axis(of_class, as_labels(y)[:, None, None], 1)
    by_signal = _einsum("nk,nks->ns", posterior, of_label - of_class) / problem.signal_std**2
    return _einsum("ns,nsp->np", by_signal * lengths[:, :signal], tangents[:, :signal]).reshape(x.shape)


def score(
    problem: Problem, x: Float[Array, "n ..."], y: Integer[Array, " n"] | None = None, *, sigma: Any = 0.0
) -> Float[Array, "n ..."]:
    """``d log p(x) / d x`` of images on a plane under isotropic noise, in closed form.

    The density is a Gaussian mixture with variances ``signal_std^2``, ``distractor_std^2`` and, off the manifold,
    ``noise^2``, each plus ``sigma^2``. The score of a class less that of all is the gradient of the log-posterior of
    noisy images; at ``sigma = 0`` it is ``gradient``.

    Args:
      problem: Problem from ``linear``.
      x: Noisy images.
      y: Labels, for the scores of their classes; by default the score of all classes together.
      sigma: Standard deviation of the noise that is added, in the units of images in [0, 1]; traced.

    Returns:
      Scores, shaped as ``x``.

    Raises:
      ValueError: A curved problem, images or labels that do not fit, or no noise at all, where there is no density.
    """
    if problem.radius is not None:
        raise ValueError("the score has a closed form for `linear` problems only")
    if not is_traced(problem.noise, sigma) and not (problem.noise > 0 or sigma > 0):
        raise ValueError("images without `noise` have no density; use `sigma` above 0")
    added, signal = jnp.asarray(sigma, x.dtype) ** 2, problem.means.shape[-1]
    t = coordinates(problem, x)
    joint = _log_joint(problem, t[:, :signal], problem.signal_std**2 + added)
    if y is not None:
        check_labels(y, x)
        check_classes(partial(log_posterior, problem), x, y)
        joint = jnp.where(jax.nn.one_hot(as_labels(y), joint.shape[1], dtype=bool)[:, :, None], joint, -jnp.inf)
    mean = _einsum("nkm,kms->ns", jax.nn.softmax(joint, (1, 2)), problem.means)
    by_signal = (mean - t[:, :signal]) / (problem.signal_std**2 + added)
    by_distractor = -t[:, signal:] / (problem.distractor_std**2 + added)
    along = _einsum("nd,d...->n...", jnp.concatenate([by_signal, by_distractor], 1), problem.frame)
    return along + (embed(problem, t) - x) / (problem.noise**2 + added)


def denoiser(problem: Problem, y: Integer[Array, " n"] | None = None) -> Callable[[Any, Any], Array]:
    """The exact denoiser ``E[image | noisy image]`` of images on a plane, or of those with the labels ``y``.

    Returns ``denoise(x_pm1, sigma_pm1) = x_pm1 + sigma_pm1^2 score`` (Tweedie's formula), in the units of images in
    [-1, 1]. It raises what ``score`` does.
    """

    def denoise(x_pm1: Any, sigma_pm1: Any) -> Array:
        x, sigma = (x_pm1 + 1) / 2, jnp.asarray(sigma_pm1, x_pm1.dtype) / 2
        return 2 * (x + sigma**2 * score(problem, x, y, sigma=sigma)) - 1

    return denoise


def _chart(problem: Problem, x: Array) -> tuple[Array, Array, Array]:
    """At the nearest points: coordinates, flat unit tangents, and lengths ``r / rho_j`` of the former's gradients."""
    check_images(x)
    if x.shape[1:] != problem.frame.shape[1:]:
        raise ValueError(f"expected images of the shape {problem.frame.shape[1:]}, got {x.shape[1:]}")
    frame = problem.frame.reshape(problem.frame.shape[0], -1)
    places = _einsum("np,rp->nr", (x - 0.5).reshape(len(x), -1), frame)
    if problem.radius is None:
        return places, jnp.broadcast_to(frame, (len(x), *frame.shape)), jnp.ones_like(places)
    along, inward = jnp.split(places, 2, axis=1)
    angle = jnp.arctan2(along, problem.radius + inward)
    first, second = jnp.split(frame, 2)
    tangents = jnp.cos(angle)[:, :, None] * first[None] - jnp.sin(angle)[:, :, None] * second[None]
    return problem.radius * angle, tangents, problem.radius / jnp.hypot(along, problem.radius + inward)


def _log_joint(problem: Problem, u: Array, variance: Array) -> Float[Array, "n classes modes"]:
    """Log-density of the signal with its class and mode, up to a function of the signal alone."""
    exponent = _einsum("ns,kms->nkm", u, problem.means) - jnp.sum(problem.means**2, 2)[None] / 2
    return jnp.log(problem.weights)[None] + exponent / variance


def _extended(frame: Array, count: int, key: Array) -> Array:
    """Orthonormal images, and after them ``count`` random ones."""
    shape, pixels = frame.shape[1:], int(np.prod(frame.shape[1:]))
    if pixels < len(frame) + count:
        raise ValueError(f"this manifold needs images of {len(frame) + count} pixels or more, got the shape {shape}")
    columns = jnp.concatenate([frame.reshape(-1, pixels), jax.random.normal(key, (count, pixels), frame.dtype)]).T
    return jnp.concatenate([frame, jnp.linalg.qr(columns)[0].T[len(frame) :].reshape(count, *shape)])
