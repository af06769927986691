r"""An empirical lower bound on epsilon: how well unlearned and retrained models can in fact be told apart.

If unlearned and retrained parameters are (epsilon, delta)-indistinguishable (Guo et al. 2020, section 2), then for
every region ``S``, with ``P`` the probability under one and ``Q`` under the other, in either order,

    P(S) <= e^epsilon Q(S) + delta,   so   epsilon >= log((P(S) - delta) / Q(S)).

``S`` is a half-line of a statistic of ``distinguishers``. Statistic, threshold, side and order are chosen on one half
of the models; the other half, which the choice has not seen, gives exact confidence bounds of ``P(S)`` and ``Q(S)``
(Clopper & Pearson 1934), at a confidence that holds for all statistics at once (Bonferroni), so that the largest bound
is as valid as each. Jagielski, Ullman & Oprea (2020), "Auditing differentially private machine learning", section 3.

A bound from few models is low, whatever is compared (``largest_bound``). A small bound means that nothing was found,
not that there is no difference.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float

from fmu_jax.arrays import as_floats
from fmu_jax.audit.binomial import clopper_pearson
from fmu_jax.audit.distinguishers import DISTINGUISHERS, fit_scores
from fmu_jax.objective import Scalar
from fmu_jax.privacy import check_probability
from fmu_jax.showing import one_line
from fmu_jax.tails import outward, unit_of

#: Fewest models to audit: a quarter of them fits a mean and a covariance.
MIN_MODELS = 40


class EmpiricalEpsilon(NamedTuple):
    """Lower bounds on epsilon, each >= 0, all of which hold at once with the asked confidence.

    Attributes:
      epsilon: The largest.
      by_test: Each by the name of its statistic, a key of ``DISTINGUISHERS``.
    """

    epsilon: Float[Array, ""]
    by_test: dict[str, Float[Array, ""]]

    __repr__ = one_line(values=4)


@jax.default_matmul_precision("highest")
def empirical_epsilon(
    unlearned: Any,
    retrained: Any,
    *,
    delta: Scalar,
    confidence: Scalar = 0.95,
    key: Array,
) -> EmpiricalEpsilon:
    """Bounds from below the epsilon at which two samples of parameters are (epsilon, delta)-indistinguishable.

    Args:
      unlearned: ``(n, d)`` parameters after unlearning, one independent draw of the noise a row.
      retrained: ``(n, d)`` parameters retrained. Row ``j`` may share its noise with row ``j`` of ``unlearned``.
      delta: Failure probability in (0, 1), that of the certificate.
      confidence: Confidence with which the bound holds, in (0, 1).
      key: PRNG key, required; splits the rows into the two halves.

    Returns:
      An ``EmpiricalEpsilon``; never NaN.

    Raises:
      ValueError: The samples differ in shape, hold fewer than ``MIN_MODELS`` rows, or are not finite; ``delta`` or
        ``confidence`` out of range.

    >>> normal = jax.random.normal(jax.random.key(0), (2, 4000, 2))
    >>> bound = empirical_epsilon(normal[0] + 3.0, normal[1], delta=1e-5, key=jax.random.key(1)).epsilon
    >>> bool(bound > 4)
    True
    """
    check_probability(delta=delta, confidence=confidence)
    unlearned, retrained = check_samples(unlearned, retrained)
    bounds = largest_gains(Partial(_log_ratio, delta=delta), unlearned, retrained, confidence, key)
    return EmpiricalEpsilon(jnp.max(jnp.stack(list(bounds.values()))), bounds)


def check_samples(unlearned: Any, retrained: Any) -> tuple[Array, Array]:
    """Both samples as arrays; ValueError unless they are finite, of one shape, and of enough models."""
    unlearned = as_floats(unlearned, "unlearned", finite=True)
    retrained = as_floats(retrained, "retrained", finite=True)
    shapes = unlearned.shape, retrained.shape
    if len(shapes[0]) != 2 or shapes[0] != shapes[1] or shapes[0][1] < 1:
        raise ValueError(f"both samples must have the same shape (models, d), got {shapes[0]} and {shapes[1]}")
    if shapes[0][0] < MIN_MODELS:
        raise ValueError(f"an audit needs at least {MIN_MODELS} models a sample, got {shapes[0][0]}; draw more")
    return unlearned, retrained


def largest_bound(models: int, *, delta: Scalar, confidence: Scalar = 0.95) -> Array:
    """The largest epsilon that so many models can show: the bound of ``empirical_epsilon`` if it tells all models
    apart.

    Args:
      models: Rows of a sample.
      delta: Failure probability in (0, 1).
      confidence: Confidence in (0, 1).

    >>> [round(float(largest_bound(models, delta=1e-5)), 2) for models in (100, 10_000, 1_000_000)]
    [2.1, 6.76, 11.37]
    """
    check_probability(delta=delta, confidence=confidence)
    n = models - models // 2
    low, high = clopper_pearson(jnp.array([n, 0]), n, confidence=1 - (1 - confidence) / len(DISTINGUISHERS))
    return jnp.maximum(_log_ratio(low[0], high[1], delta=delta), 0)


@jax.jit
def largest_gains(gain: Callable[..., Any], unlearned, retrained, confidence, key) -> dict[str, Array]:
    """The largest ``gain(P(S), Q(S))`` over the regions of each statistic, 0 at least: chosen on half of the models.

    ``gain`` grows with its first argument and falls with its second, either way round; it is a ``Partial``. All bounds
    hold at once with the confidence.
    """
    count = unlearned.shape[0]
    order = jax.random.permutation(key, count)
    first, second = order[: count // 2], order[count // 2 :]
    miss = (1 - confidence) / len(DISTINGUISHERS)
    scores = fit_scores(unlearned[first], retrained[first])

    def one(p_first, q_first, p_second, q_second):
        return _evaluate(gain, _choose(gain, p_first, q_first, miss), p_second, q_second, miss)

    parts = unlearned[first], retrained[first], unlearned[second], retrained[second]
    bounds = jax.vmap(one)(*(jnp.stack([score(part) for score in scores.values()]) for part in parts))
    return dict(zip(scores, bounds, strict=True))


class _Choice(NamedTuple):
    """The region ``score > threshold``, or its complement if ``below``; ``swap`` puts the second sample in the lead."""

    threshold: Float[Array, ""]
    below: Array
    swap: Array


def _choose(gain, p, q, miss) -> _Choice:
    """The region with the largest bound on the half at hand, by closed-form (Wilson 1927) intervals.

    They need not be exact: what is chosen is evaluated on other models.
    """
    n, z = p.shape[0], -jax.scipy.special.ndtri(miss / 2)
    thresholds = jnp.concatenate([p, q])

    def interval(scores):
        above = n - jnp.searchsorted(jnp.sort(scores), thresholds, side="right")
        share = jnp.stack([above, n - above]).astype(scores.dtype) / n  # by side
        centre, reach = share + z**2 / (2 * n), z * jnp.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
        return (centre - reach) / (1 + z**2 / n), (centre + reach) / (1 + z**2 / n)

    (p_low, p_high), (q_low, q_high) = interval(p), interval(q)
    bounds = jnp.stack([gain(p_low, q_high), gain(q_low, p_high)])
    swap, below, at = jnp.unravel_index(jnp.argmax(bounds), bounds.shape)
    return _Choice(thresholds[at], below == 1, swap == 1)


def _evaluate(gain, choice: _Choice, p, q, miss):
    """The bound of a chosen region on models that the choice has not seen."""
    n = p.shape[0]
    above = jnp.stack([jnp.sum(p > choice.threshold), jnp.sum(q > choice.threshold)])
    inside = jnp.where(choice.below, n - above, above)
    low, high = clopper_pearson(jnp.where(choice.swap, inside[::-1], inside), n, confidence=1 - miss)
    return jnp.maximum(gain(low[0], high[1]), 0)


def _log_ratio(p, q, *, delta):
    """``log((p - delta) / q)``, rounded down; minus infinity where ``p <= delta``; ``q > 0``."""
    return outward(_rounded_log_ratio, p, q, delta, up=False)


def _rounded_log_ratio(xp, p, q, delta):
    unit = unit_of(xp, p)
    left = p - delta - 4 * unit * p
    ratio = xp.log(xp.where(left > 0, left, 1) / q)
    return xp.where(left > 0, ratio - 4 * unit * (1 + xp.abs(ratio)), -xp.inf)
