r"""Statistics that tell two samples of parameters apart, each fitted to one pair of samples to be used on another.

With means ``m_p, m_q``, covariances ``C_p, C_q`` and their average ``C``, the score of a point ``x`` is

    mean_difference   (m_p - m_q).x                       where the samples are apart
    fisher            (m_p - m_q)' C^-1 x                 the same, in units of their spread (Fisher 1936)
    principal         v.x, v the leading eigenvector of C
    spread            (w.(x - m_q))^2, w the direction in which the variances have the most extreme ratio
    likelihood_ratio  log N(x; m_p, C_p) - log N(x; m_q, C_q), up to a constant

By Neyman and Pearson the last one is best where both samples are Gaussian; the others need fewer numbers fitted.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Sample = Float[Array, "n d"]
Score = Callable[[Sample], Float[Array, " n"]]


class Fit(NamedTuple):
    """Moments of the two samples; covariances carry a ridge of ``sqrt(eps)``, so that they are positive definite.

    Attributes:
      mean_p, mean_q: ``(d,)``.
      cov_p, cov_q: ``(d, d)``.
    """

    mean_p: Float[Array, " d"]
    mean_q: Float[Array, " d"]
    cov_p: Float[Array, "d d"]
    cov_q: Float[Array, "d d"]

    @property
    def difference(self) -> Float[Array, " d"]:
        """``m_p - m_q``."""
        return self.mean_p - self.mean_q

    @property
    def pooled(self) -> Float[Array, "d d"]:
        """The average covariance ``C``."""
        return (self.cov_p + self.cov_q) / 2


def mean_difference(fit: Fit) -> Score:
    """Projection on the difference of the means."""
    return lambda x: x @ fit.difference


def fisher(fit: Fit) -> Score:
    """Projection on Fisher's linear discriminant."""
    direction = jax.scipy.linalg.solve(fit.pooled, fit.difference, assume_a="pos")
    return lambda x: x @ direction


def principal(fit: Fit) -> Score:
    """Projection on the leading principal direction."""
    direction = jnp.linalg.eigh(fit.pooled)[1][:, -1]
    return lambda x: x @ direction


def spread(fit: Fit) -> Score:
    """Squared distance from the second mean in the direction in which the two variances differ most."""
    whiten = _whitening(fit.cov_q)
    ratios, vectors = jnp.linalg.eigh(whiten @ fit.cov_p @ whiten.T)
    # Both ends, as either may be the more extreme ratio; rounding can leave the smallest one below zero.
    extremes = jnp.maximum(ratios[jnp.array([0, -1])], jnp.finfo(ratios.dtype).tiny)
    vector = jnp.where(jnp.abs(jnp.log(extremes[0])) > jnp.log(extremes[1]), vectors[:, 0], vectors[:, -1])
    direction = whiten.T @ vector
    return lambda x: ((x - fit.mean_q[None]) @ direction) ** 2


def likelihood_ratio(fit: Fit) -> Score:
    """Log-likelihood ratio of the two fitted Gaussians."""
    whiten_p, whiten_q = _whitening(fit.cov_p), _whitening(fit.cov_q)

    def distance(x, mean, whiten):
        return jnp.sum(((x - mean[None]) @ whiten.T) ** 2, axis=1)

    return lambda x: (distance(x, fit.mean_q, whiten_q) - distance(x, fit.mean_p, whiten_p)) / 2


def _whitening(cov):
    """Inverse of the lower Cholesky factor: ``W cov W' = I``."""
    identity = jnp.eye(cov.shape[0], dtype=cov.dtype)
    return jax.scipy.linalg.solve_triangular(jnp.linalg.cholesky(cov), identity, lower=True)


#: Every statistic by name; each takes a ``Fit`` and returns a score.
DISTINGUISHERS: dict[str, Callable[[Fit], Score]] = {
    "mean_difference": mean_difference,
    "fisher": fisher,
    "principal": principal,
    "spread": spread,
    "likelihood_ratio": likelihood_ratio,
}


def fit_scores(p: Sample, q: Sample) -> dict[str, Score]:
    """Fits every statistic to two samples, in units of their common spread.

    Args:
      p: ``(n, d)`` points of the first distribution.
      q: ``(m, d)`` points of the second.

    Returns:
      A score for each of ``DISTINGUISHERS``: points ``(k, d)`` to ``(k,)``, large where the first is the likelier.
    """
    both = jnp.concatenate([p, q])
    centre, scale = jnp.mean(both, axis=0), jnp.std(both, axis=0)
    scale = jnp.where(scale > 0, scale, 1)

    def standardise(x):
        return (x - centre[None]) / scale[None]

    def moments(x):
        mean = jnp.mean(x, axis=0)
        ridge = jnp.sqrt(jnp.finfo(x.dtype).eps) * jnp.eye(x.shape[1], dtype=x.dtype)
        return mean, (x - mean[None]).T @ (x - mean[None]) / x.shape[0] + ridge

    (mean_p, cov_p), (mean_q, cov_q) = moments(standardise(p)), moments(standardise(q))
    fit = Fit(mean_p, mean_q, cov_p, cov_q)

    def after(score):
        return lambda x: score(standardise(x))

    return {name: after(make(fit)) for name, make in DISTINGUISHERS.items()}
