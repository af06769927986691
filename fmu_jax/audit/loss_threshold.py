"""A loss-threshold membership attack: rows that a model fits well were probably trained on.

The same threshold for all rows makes it far weaker than ``lira``; it needs no shadow models, and is what an outsider
would try first. Source: Yeom et al. (2018), "Privacy risk in machine learning: analyzing the connection to
overfitting", section 3.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fmu_jax.arrays import as_floats, as_mask, check_ordered
from fmu_jax.audit.roc import auc
from fmu_jax.showing import one_line
from fmu_jax.tracing import is_traced


class Membership(NamedTuple):
    """Success of the attack on each model, to be averaged over models; by chance the fields are 1/2 and 0.

    An average below 1/2 is success too: unlearned rows then fit worse than rows never seen (over-unlearning), and the
    attacker turns the answer round.

    Attributes:
      auc: Probability that an unlearned row has less loss than a row never seen, ``(models,)``.
      advantage: Share of unlearned rows with less loss than the threshold, minus that of rows never seen,
        ``(models,)``.
    """

    auc: Float[Array, " models"]
    advantage: Float[Array, " models"]

    __repr__ = one_line(values=4)


def membership(
    loss: Any,
    member: Any,
    *,
    threshold: Any = None,
) -> Membership:
    """Attacks each model by the losses of its rows.

    Args:
      loss: ``(models, rows)`` of the unlearned models.
      member: ``(models, rows)``, boolean: was trained on and unlearned (true), or never seen (false).
      threshold: ``(models,)``; Yeom et al. take the average training loss. None is the mean of each model's losses.

    Returns:
      A ``Membership``.

    Raises:
      ValueError: The shapes differ, ``threshold`` has not one entry a model, or entries are NaN or not as said.

    >>> loss, member = jnp.array([[0.1, 0.2, 0.9, 0.4]]), jnp.array([[True, True, False, False]])
    >>> membership(loss, member).auc.tolist(), membership(loss, member).advantage.tolist()
    ([1.0], [1.0])
    """
    loss, member = as_floats(loss, "loss"), as_mask(member, "member")
    if jnp.ndim(loss) != 2 or jnp.shape(loss) != jnp.shape(member):
        raise ValueError(f"`loss` and `member` must both be (models, rows), got {jnp.shape(loss)}, {jnp.shape(member)}")
    check_ordered(loss=loss)
    if threshold is None:
        threshold = jnp.mean(loss, axis=1)
        if not is_traced(threshold) and np.any(np.isnan(threshold) | (np.isinf(threshold) & np.isfinite(loss).all(1))):
            raise ValueError(
                "the mean of `loss` is no number (no rows, inf beside -inf, or too large); pass `threshold`"
            )
    threshold = as_floats(threshold, "threshold", dtype=loss.dtype)
    check_ordered(threshold=threshold)
    if jnp.shape(threshold) != jnp.shape(loss)[:1]:
        raise ValueError(f"`threshold` must have shape {jnp.shape(loss)[:1]}, got {jnp.shape(threshold)}")
    return _attack(loss, member, threshold)


@jax.jit
@jax.vmap
def _attack(loss, member, threshold) -> Membership:
    def rate(rows):
        return jnp.sum((loss < threshold) & rows) / jnp.maximum(jnp.sum(rows), 1)

    return Membership(auc(-loss, member), rate(member) - rate(~member))
