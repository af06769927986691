r"""A relative three-sample test whether unlearned models are nearer to retrained ones than untouched models are.

With the squared maximum mean discrepancy of a Gaussian kernel, estimated without bias from independent samples ``u``
(unlearned), ``r`` (retrained) and ``t`` (trained, nothing removed),

    T = MMD^2(t, r) - MMD^2(u, r)

is asymptotically normal, and a small p-value shows ``T > 0``: the removal did something right. The test does not say
how near the removal came to retraining. A test of two samples can find a difference that no guarantee forbids; this
test cannot, and it tells a removal that did nothing, or harm, from one that did something.

Source: Bounliphone et al. (2016), "A test of relative similarity for model selection in generative models"; relative
tests for unlearning in Ribero, Schrab & Gretton (2026), "Regularized f-divergence kernel tests".
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fmu_jax.arrays import as_floats
from fmu_jax.audit.epsilon import MIN_MODELS
from fmu_jax.batches import map_in_batches
from fmu_jax.showing import one_line


class Relative(NamedTuple):
    """What the test finds.

    Attributes:
      p_value: Small where unlearned models are shown to be the nearer ones.
      unlearned, trained: Squared discrepancy from the retrained models, without bias; it may be below zero.
    """

    p_value: Float[Array, ""]
    unlearned: Float[Array, ""]
    trained: Float[Array, ""]

    __repr__ = one_line()


@jax.default_matmul_precision("highest")
def relative_test(unlearned: Any, retrained: Any, trained: Any) -> Relative:
    """Tests whether unlearned models are nearer to retrained ones than trained models are.

    Args:
      unlearned: ``(n, d)`` published parameters after unlearning, independent draws.
      retrained: ``(n, d)`` after retraining, drawn independently of the others.
      trained: ``(n, d)`` with nothing removed, drawn independently of the others.

    Returns:
      A ``Relative``. O(n^2 d) time and O(n) memory.

    Raises:
      ValueError: The samples differ in shape, hold fewer than ``MIN_MODELS`` rows, or are not finite.

    >>> normal = jax.random.normal(jax.random.key(0), (3, 500, 2))
    >>> bool(relative_test(normal[0], normal[1], normal[2] + 1.0).p_value < 1e-6)
    True
    """
    names = ("unlearned", "retrained", "trained")
    samples = [as_floats(x, n, finite=True) for n, x in zip(names, (unlearned, retrained, trained), strict=True)]
    shapes = [sample.shape for sample in samples]
    if len(shapes[0]) != 2 or len(set(shapes)) > 1 or shapes[0][1] < 1:
        raise ValueError(f"the samples must have the same shape (models, d), got {', '.join(map(str, shapes))}")
    if shapes[0][0] < MIN_MODELS:
        raise ValueError(f"a test needs at least {MIN_MODELS} models a sample, got {shapes[0][0]}; draw more")
    return _relative(*samples)


@jax.jit
def _relative(u, r, t) -> Relative:
    n = u.shape[0]
    centre, scale = r.mean(axis=0), jnp.std(jnp.concatenate([u, r, t]), axis=0)
    scale = jnp.where(scale > 0, scale, 1)
    u, r, t = ((sample - centre[None]) / scale[None] for sample in (u, r, t))
    some = jnp.concatenate([sample[:100] for sample in (u, r, t)])
    squares = jnp.sum((some[:, None] - some[None]) ** 2, axis=-1)
    width = jnp.maximum(jnp.median(squares), jnp.finfo(u.dtype).tiny)

    def row(i):
        def means(x, other, *, itself):
            k = jnp.exp(-jnp.sum((x[None] - other) ** 2, axis=1) / (2 * width))
            # Without the diagonal, as an estimate without bias asks for.
            return (k.sum() - k[i]) / (n - 1) if itself else k

        uu, rr, tt = (means(x[i], x, itself=True) for x in (u, r, t))
        others = jnp.arange(n, dtype=jnp.int32) != i

        def cross(a, b):
            mean = jnp.sum(jnp.where(others, means(a[i], b, itself=False) + means(b[i], a, itself=False), 0))
            return mean / (n - 1)

        return uu + rr - cross(u, r), tt + rr - cross(t, r)

    by_u, by_t = map_in_batches(row, jnp.arange(n, dtype=jnp.int32), batch_size=64)
    apart = by_t - by_u
    # The variance of a U-statistic of degree two to first order: 4/n of its projections'.
    error = 2 * jnp.std(apart) / jnp.sqrt(jnp.asarray(n, apart.dtype))
    z = apart.mean() / jnp.maximum(error, jnp.finfo(apart.dtype).tiny)
    return Relative(jax.scipy.stats.norm.sf(z), by_u.mean(), by_t.mean())
