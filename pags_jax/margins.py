r"""The losses that attacks increase: how far the label's logit lies behind the others; negative where it leads.

With the logits ``f``, sorted ``f_(1) >= f_(2) >= ...``, a label ``y`` and a target ``t``,

    name              away from y                                          towards t
    "cross_entropy"   log sum_{k != y} exp(f_k) - f_y                      f_t - log sum_{k != t} exp(f_k)
    "margin"          max_{k != y} f_k - f_y                               f_t - max_{k != t} f_k
    "dlr"             (max_{k != y} f_k - f_y) / (f_(1) - f_(3))           (f_t - f_y) / (f_(1) - (f_(3) + f_(4)) / 2)

The gradient of the first has the direction of the cross-entropy's gradient, but does not vanish where the model is
sure. The second is Carlini and Wagner's (2017), the third the difference of logits ratio of Croce and Hein (2020).
Scaling all logits does not change the direction of the last two, and shifting them changes none of the three. All are
NaN where a label or a target is no class.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from pags_jax.images import as_labels, wide
from pags_jax.likelihood import gap, label_logit

#: What an attack raises.
Loss = Literal["cross_entropy", "margin", "dlr"]
#: Fewest classes for which "dlr" is not constant: without and with targets.
DLR_CLASSES = (3, 4)


def behind(
    loss: Loss,
    logits: Float[Array, "n classes"],
    labels: Integer[Array, " n"],
    targets: Integer[Array, " n"] | None = None,
) -> Float[Array, " n"]:
    """The loss of the module's table for each example, in float32 at least.

    Args:
      loss: Its name.
      logits: Logits of each example.
      labels: What the attack leads away from.
      targets: What it leads to, if anything.

    Returns:
      Values that are above 0 where another class leads; "cross_entropy" may be so before.

    Raises:
      ValueError: Fewer than two classes.

    >>> logits = jnp.array([[3.0, 2.0, 1.0]])
    >>> [float(behind(loss, logits, jnp.array([0])).round(3)[0]) for loss in ("cross_entropy", "margin", "dlr")]
    [-0.687, -1.0, -0.5]
    """
    # Before any difference: float16 cannot hold differences of its own range.
    logits = jnp.asarray(logits)
    logits = logits.astype(wide(logits.dtype))
    if targets is None:
        return _AWAY[loss](logits, labels)
    return _TOWARDS[loss](logits, labels, targets)


def correct_logits(logits: Float[Array, "n classes"], labels: Integer[Array, " n"]) -> Array:
    """Whether all logits are finite and the label's is above every other."""
    return jnp.all(jnp.isfinite(logits), -1) & (behind("margin", logits, labels) < 0)


def _margin(logits: Array, labels: Array) -> Array:
    is_label = jax.nn.one_hot(as_labels(labels), logits.shape[-1], dtype=bool)
    # One rival alone, also among equals: shares of a tie need not add up to 1, so that what all logits have in common
    # would leave a gradient of rounding.
    rival = jnp.argmax(jnp.where(is_label, -jnp.inf, logits), -1, keepdims=True)
    return jnp.take_along_axis(logits, rival, -1)[:, 0] - label_logit(logits, labels)


def _dlr(logits: Array, labels: Array) -> Array:
    ranked = jax.lax.top_k(logits, 3)[0]
    return _margin(logits, labels) / _positive(ranked[:, 0] - ranked[:, 2])


def _dlr_towards(logits: Array, labels: Array, targets: Array) -> Array:
    ranked = jax.lax.top_k(logits, 4)[0]
    lead = label_logit(logits, targets) - label_logit(logits, labels)
    return lead / _positive(ranked[:, 0] - (ranked[:, 2] + ranked[:, 3]) / 2)


def _positive(spread: Array) -> Array:
    return jnp.where(spread > 0, spread, 1)


_AWAY: dict[str, Callable[..., Any]] = {"cross_entropy": gap, "margin": _margin, "dlr": _dlr}
_TOWARDS: dict[str, Callable[..., Any]] = {
    "cross_entropy": lambda logits, _, targets: -gap(logits, targets),
    "margin": lambda logits, _, targets: -_margin(logits, targets),
    "dlr": _dlr_towards,
}
