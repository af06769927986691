r"""Statistics over images and over models: intervals by a paired bootstrap, and rank correlations by permutation.

Measures of several models on the same images are paired: an image that is easy for one model is easy for the others, so
differences are known far more precisely than the measures themselves. A resample takes the same images for all models,

    mean*_k = sum_i c_i v_ik / sum_i c_i,    c ~ multinomial(n; 1/n, ..., 1/n),

and an interval is that of the percentiles of what is computed from the ``mean*`` (Efron 1979).

Models of one loss differ only in strength. To test whether two measures are correlated *within* losses, models are
permuted within their loss; given a third measure ``z``, residuals are permuted (Freedman and Lane 1983), on ranks:

    rho = corr(M r_x, M r_y),    M = I - Q Q',  Q an orthonormal basis of 1 and the ranks of z
    p   = (1 + #{|rho*| >= |rho|}) / (1 + permutations)

These functions are pure, and can be jitted with ``resamples`` and ``permutations`` static. They compute in float32 at
least: squares of the ranks of 20 models sum up to more than float16 holds.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from pags_jax.chunks import check_counts
from pags_jax.images import is_traced, wide
from pags_jax.means import mean_and_error as mean_and_error
from pags_jax.means import means_of as means_of

_HIGHEST = jax.lax.Precision.HIGHEST


class Interval(NamedTuple):
    """An estimate and its interval.

    Attributes:
      estimate: Estimate from all images.
      low: Lower end.
      high: Upper end.
    """

    estimate: Float[Array, "..."]
    low: Float[Array, "..."]
    high: Float[Array, "..."]


class Peak(NamedTuple):
    """How clearly a measure rises to its peak over a sweep, and falls from it; see ``rise_and_fall``.

    Attributes:
      place: Index of the strength at which the mean over one half of the images is largest.
      rise: The mean there less that at the first strength, over the other half.
      fall: The mean there less that at the last.
    """

    place: Int[Array, ""]
    rise: Interval
    fall: Interval


class Correlation(NamedTuple):
    """A rank correlation.

    Attributes:
      rho: Rank correlation in [-1, 1]; NaN where one side has a single value, or none is left beside what is given.
      p: Two-sided, from permutations; NaN where ``rho`` is.
    """

    rho: Float[Array, ""]
    p: Float[Array, ""]


def mean_interval(values: Float[Array, "n ..."], *, key: Array, resamples: int = 9999, level: float = 0.95) -> Interval:
    """Means over images with percentile intervals; for two models paired, give the differences of their values.

    Args:
      values: Values of each image, for one or several measures; an image with a value that is not finite counts in
        none.
      key: PRNG key; the same resamples serve all measures.
      resamples: Number of resamples.
      level: Level of the interval, above 0 and below 1.

    Returns:
      Estimates and ends, shaped as ``values[0]``; NaN where no image is left.

    Raises:
      ValueError: No images, or a number of resamples or a level that cannot be used.

    >>> mean, low, high = mean_interval(jnp.arange(100.0), key=jax.random.key(0))
    >>> mean.item(), bool((43 < low) & (low < 45)), bool((54 < high) & (high < 56))
    (49.5, True, True)
    """
    values = _images_first(jnp.asarray(values))
    means = _resampled_means(values, key, resamples)
    return _interval(jnp.nanmean(values, axis=0), means, float(level))


def rise_and_fall(
    values: Float[Array, "n strengths"], *, key: Array, resamples: int = 9999, level: float = 0.95
) -> Peak:
    """Tests the peak of a measure over a sweep; the images that choose the peak are not those that measure it.

    A drawn half of the images says where the peak is, the other half how far the mean rises to it and falls from it. A
    peak at an end of the sweep has a rise or a fall of exactly 0.

    Args:
      values: Values of each image, at strengths that ascend; an image with a value that is not finite counts nowhere.
      key: PRNG key of the halves and of the resamples.
      resamples: Number of resamples.
      level: Level of the intervals.

    Returns:
      Where the peak is, rise and fall; NaN where fewer than two images count.

    Raises:
      ValueError: As ``mean_interval``, or fewer than two images.

    >>> curve = jnp.array([[0.0, 1.0, 0.5]]) + 0.01 * jax.random.normal(jax.random.key(0), (40, 3))
    >>> place, rise, fall = rise_and_fall(curve, key=jax.random.key(1))
    >>> place.item(), bool(rise.low > 0.9), bool(fall.low > 0.4)
    (1, True, True)
    """
    values = _images_first(jnp.asarray(values))
    if values.ndim != 2 or len(values) < 2:
        raise ValueError(f"expected values (images, strengths) of two images or more, got the shape {values.shape}")
    for_halves, for_resamples = jax.random.split(key)
    shuffled = jax.random.permutation(for_halves, values)
    shuffled = shuffled[jnp.argsort(jnp.isnan(shuffled[:, 0]), stable=True)]  # Those that count come first.
    rows, counted = len(values), jnp.isfinite(values[:, 0]).sum(dtype=jnp.int32)
    one = jnp.where((jnp.arange(rows, dtype=jnp.int32) < counted // 2)[:, None], shuffled, jnp.nan)[: rows // 2]
    # As many rows whatever counts, and after the second half of what counts those that do not.
    other = jnp.roll(shuffled, -(counted // 2), axis=0)[: rows - rows // 2]
    last = jnp.arange(len(other), dtype=jnp.int32) < counted - counted // 2
    other = jnp.where((last & (counted > 1))[:, None], other, jnp.nan)
    place = jnp.argmax(jnp.nanmean(one, axis=0))
    differences = jnp.stack([other[:, place] - other[:, 0], other[:, place] - other[:, -1]], axis=1)
    both = mean_interval(differences, key=for_resamples, resamples=resamples, level=level)
    return Peak(place, *(Interval(*(part[k] for part in both)) for k in range(2)))


def rank_correlation(
    x: Float[Array, " n"],
    y: Float[Array, " n"],
    *,
    key: Array,
    groups: Int[Array, " m"] | None = None,
    given: Float[Array, "l ..."] | None = None,
    permutations: int = 9999,
) -> Correlation:
    """Spearman's rank correlation over models, and whether it could be chance.

    Args:
      x: A measure of each model.
      y: Another one.
      key: PRNG key of the permutations.
      groups: The loss of each model, as numbers: models are permuted within it alone. By default all are alike.
      given: Measures, ``(n,)`` or ``(n, measures)``, whose ranks are taken out of both sides: a partial correlation.
      permutations: How many random ones.

    Returns:
      The correlation and its p-value; the smallest p is ``1 / (permutations + 1)``, and 1 where every group has one
      model.

    Raises:
      ValueError: Fewer than three models, shapes that do not fit, or values that are not finite.

    >>> found = rank_correlation(jnp.arange(6.0), jnp.arange(6.0) ** 2, key=jax.random.key(0))
    >>> round(found.rho.item(), 5), bool(found.p < 0.01)
    (1.0, True)
    """
    x, y = (jnp.asarray(values) for values in (x, y))
    if x.ndim != 1 or x.shape != y.shape or len(x) < 3:
        raise ValueError(f"expected two measures of three models or more, got the shapes {x.shape} and {y.shape}")
    n = len(x)
    groups = jnp.zeros(n, jnp.int32) if groups is None else jnp.asarray(groups)
    given = jnp.zeros((n, 0), x.dtype) if given is None else jnp.asarray(given).reshape(len(jnp.asarray(given)), -1)
    if groups.shape != (n,) or len(given) != n:
        raise ValueError(f"expected `groups` and `given` of {n} models, got the shapes {groups.shape}, {given.shape}")
    check_counts(permutations=permutations)
    for name, values in (("x", x), ("y", y), ("given", given)):
        _check_finite(name, values)
    sides = (x, y, *given.T)  # Each is ranked in its own type: rounded to another, values would tie.
    dtype = jnp.float64 if any(side.dtype == jnp.float64 for side in sides) else jnp.float32
    ranked = jnp.stack([_ranks(side, dtype) for side in sides], axis=1)
    taken_out = _orthonormal(ranked[:, 2:])

    def without(v):
        v = v - v.mean()
        return v - jnp.matmul(taken_out, jnp.matmul(taken_out.T, v, precision=_HIGHEST), precision=_HIGHEST)

    one, other = without(ranked[:, 0]), without(ranked[:, 1])
    # What rounding leaves of ranks that the given ones determine is no measure.
    floor = 1e3 * n * jnp.finfo(one.dtype).eps

    def correlated(residuals):
        again = without(residuals)
        lengths = jnp.sqrt(jnp.sum(one**2) * jnp.sum(again**2))
        return jnp.where(lengths > floor, jnp.sum(one * again) / jnp.where(lengths > floor, lengths, 1), jnp.nan)

    inside = jnp.argsort(groups, stable=True)

    def permuted(key):
        shuffled = jnp.lexsort((jax.random.uniform(key, (n,)), groups))
        return correlated(jnp.zeros_like(other).at[inside].set(other[shuffled]))

    rho = correlated(other)
    drawn = jax.lax.map(permuted, jax.random.split(key, permutations), batch_size=256)
    as_strong = jnp.sum(jnp.abs(drawn) >= jnp.abs(rho) - 1e-5)
    p = (1 + as_strong) / (1 + permutations)
    return Correlation(jnp.clip(rho, -1, 1), jnp.where(jnp.isnan(rho), jnp.nan, p))


def _ranks(values: Array, dtype: Any) -> Array:
    """Ranks less their mean; equal values have their mean rank."""
    above = jnp.greater(values[:, None], values[None]).astype(dtype)
    return (above - above.T).sum(1) / 2


def _orthonormal(columns: Array) -> Array:
    """An orthonormal basis of the span of centred columns; zeros for what is not independent of those before."""
    basis = jnp.zeros((len(columns), 0), columns.dtype)
    for column in columns.T:
        for _ in range(2):  # Twice is enough.
            column = column - jnp.matmul(basis, jnp.matmul(basis.T, column, precision=_HIGHEST), precision=_HIGHEST)
        length = jnp.sqrt(jnp.sum(column**2))
        some = length > 1e3 * len(columns) * jnp.finfo(columns.dtype).eps
        unit = jnp.where(some, column / jnp.where(some, length, 1), 0)
        basis = jnp.concatenate([basis, unit[:, None]], axis=1)
    return basis


@jax.jit
def _images_first(values: Array) -> Array:
    """Values, in float32 at least, with NaN for all measures of an image that lacks one."""
    if not jnp.issubdtype(values.dtype, jnp.floating) or values.ndim < 1 or values.size == 0:
        raise ValueError(f"expected floats with an axis of images, got {values.dtype} of the shape {values.shape}")
    whole = jnp.all(jnp.isfinite(values), tuple(range(1, values.ndim)), keepdims=True)
    return jnp.where(whole, values, jnp.nan).astype(wide(values.dtype))


@partial(jax.jit, static_argnums=2)
def _resampled_means(values: Array, key: Array, resamples: int) -> Array:
    """``(resamples, ...)`` means of resampled images."""
    check_counts(resamples=resamples)
    n, there = len(values), jnp.isfinite(values.reshape(len(values), -1)[:, 0])
    columns = jnp.where(there[:, None], values.reshape(n, -1), 0)
    size, usable = there.sum(dtype=jnp.int32), jnp.argsort(~there, stable=True)
    counted = (jnp.arange(n, dtype=jnp.int32) < size).astype(columns.dtype)  # As many draws as there are usable images.

    def one(key):
        drawn = usable[jax.random.randint(key, (n,), 0, size, jnp.int32)]
        counts = jnp.zeros(n, columns.dtype).at[drawn].add(counted)
        return jnp.matmul(counts, columns, precision=_HIGHEST) / size.astype(columns.dtype)

    means = jax.lax.map(one, jax.random.split(key, resamples), batch_size=256)
    return means.reshape(resamples, *values.shape[1:])


@partial(jax.jit, static_argnums=2)
def _interval(estimate: Array, means: Array, level: float) -> Interval:
    if not 0 < level < 1:
        raise ValueError(f"`level` must be above 0 and below 1, got {level}")
    low, high = jnp.quantile(means, jnp.array([(1 - level) / 2, (1 + level) / 2], means.dtype), axis=0)
    return Interval(estimate, low, high)


def _check_finite(name: str, values: Array) -> None:
    if is_traced(values) or bool(np.isfinite(np.asarray(values)).all()):
        return
    raise ValueError(f"`{name}` holds values that are not finite; leave these models out")
