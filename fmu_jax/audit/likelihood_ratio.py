r"""U-LiRA: a likelihood-ratio attack on each example, with an attacker fitted to that example alone.

For an example the attacker knows the margins of models that were trained on it and unlearned it, and of models that
never saw it. A Gaussian is fitted to each of the two; the score of another model is the log ratio of the two densities
at its margin.

Here the models that never saw the example were unlearned by the same method (of other rows), so that the attack finds
what is left of this example, and not that a method shifts all models alike; ``klom`` finds that.
Source: Hayes et al. (2024), "Inexact unlearning needs more careful evaluations to avoid a false sense of privacy",
after Carlini et al. (2022), "Membership inference attacks from first principles".
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fmu_jax.arrays import as_floats
from fmu_jax.audit.roc import auc, true_positive_rate
from fmu_jax.objective import Scalar
from fmu_jax.privacy import check_probability
from fmu_jax.showing import one_line


class LiRA(NamedTuple):
    """How well the attack tells unlearned examples from unseen ones; by chance the fields are 1/2, 0 and the false
    rate.

    Attributes:
      auc: Area under the curve of each example, ``(rows,)``.
      advantage: True minus false positive rate at likelihood ratio 1, of each example, ``(rows,)``.
      true_positive_rate: Over the scores of all examples together, at the asked false positive rate.
    """

    auc: Float[Array, " rows"]
    advantage: Float[Array, " rows"]
    true_positive_rate: Float[Array, ""]

    __repr__ = one_line(values=4)


def lira(
    unlearned: Any,
    unseen: Any,
    *,
    false_positive_rate: Scalar = 0.01,
    paired: bool = False,
) -> LiRA:
    """Attacks each example: Gaussians from the first half of the models, scores of the second half.

    Args:
      unlearned: Margins ``(models, rows)`` of models that were trained on the example and unlearned it.
      unseen: Margins ``(models, rows)`` of models that never saw it.
      false_positive_rate: False positive rate at which ``true_positive_rate`` is read off, in (0, 1).
      paired: Row ``j`` of both shares its randomness (as in ``shadow_models``): ``auc`` then compares different rows
        only, which is unbiased, as those models are independent.

    Returns:
      A ``LiRA``; never NaN.

    Raises:
      ValueError: The shapes differ, a margin is not finite, there are fewer than 4 models, or ``false_positive_rate``
        is out of range.

    >>> margins = jax.random.normal(jax.random.key(0), (2, 400, 1))
    >>> bool(lira(margins[0] + 2.0, margins[1]).auc[0] > 0.9)
    True
    """
    check_probability(false_positive_rate=false_positive_rate)
    unlearned = as_floats(unlearned, "unlearned", finite=True)
    unseen = as_floats(unseen, "unseen", finite=True)
    shapes = unlearned.shape, unseen.shape
    if len(shapes[0]) != 2 or shapes[0] != shapes[1]:
        raise ValueError(f"both margins must have the same shape (models, rows), got {shapes[0]} and {shapes[1]}")
    if shapes[0][0] < 4:
        raise ValueError(f"the attack fits on one half of the models and needs at least 4, got {shapes[0][0]}")
    return _attack(unlearned, unseen, false_positive_rate, paired)


@partial(jax.jit, static_argnames="paired")
def _attack(unlearned, unseen, false_positive_rate, paired) -> LiRA:
    half = unlearned.shape[0] // 2

    def log_density(at, fitted):
        mean, deviation = jnp.mean(fitted, axis=0), jnp.std(fitted, axis=0, ddof=1)
        # Models that all agree have no spread; a score must stay finite.
        deviation = jnp.maximum(deviation, jnp.sqrt(jnp.finfo(at.dtype).eps) * (1 + jnp.abs(mean)))
        return -(((at - mean[None]) / deviation[None]) ** 2) / 2 - jnp.log(deviation)[None]

    def score(at):
        return log_density(at, unlearned[:half]) - log_density(at, unseen[:half])

    hits, misses = score(unlearned[half:]), score(unseen[half:])
    count = hits.shape[0]
    both = jnp.concatenate([hits, misses])
    positive = jnp.arange(2 * count) < count
    area = jax.vmap(auc, in_axes=(1, None))(both, positive)
    if paired:
        within = jnp.sum((jnp.sign(hits - misses) + 1) / 2, axis=0)
        area = (area * count**2 - within) / (count * (count - 1))
    everywhere = jnp.broadcast_to(positive[:, None], both.shape)
    found = true_positive_rate(both.ravel(), everywhere.ravel(), false_positive_rate=false_positive_rate)
    rates = [jnp.mean((scores > 0).astype(scores.dtype), axis=0) for scores in (hits, misses)]
    return LiRA(area, rates[0] - rates[1], found)
