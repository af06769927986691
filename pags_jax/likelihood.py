r"""The log-probability of a label, with gradients that stay right where the model is sure.

With ``gap = log sum_{k != y} exp(f_k) - f_y``,

    log p_y = - log(1 + exp(gap)),        d log p_y / d f = - sigmoid(gap) d gap / d f.

The gradient of ``log_softmax`` has ``1 - p_y`` for ``sigmoid(gap)``. In float32 that is mostly rounding when the label
leads by 15, and zero when it leads by 18, while the other classes keep their shares: gradients by the image then point
elsewhere, and models that were trained without a defence lead by as much. Beyond a lead of about 100 the gradient of
``log p_y`` itself is too small for float32; that of ``gap``, which points the other way, never is.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from pags_jax.images import as_labels, check_two_classes


def log_prob(logits: Float[Array, "*n classes"], labels: Integer[Array, "*n"]) -> Float[Array, "*n"]:
    """The log-probability of each label: minus its cross-entropy.

    Args:
      logits: Logits of each example, for two classes at least.
      labels: Class numbers, in any type of integers.

    Returns:
      Values of at most 0; NaN, with gradients, where a label is no class.

    Raises:
      ValueError: Fewer than two classes.

    >>> logits = jnp.array([40.0, 0.0], jnp.float32)
    >>> f"{log_prob(logits, jnp.array(0)):.2e}", f"{jax.nn.log_softmax(logits)[0]:.2e}"
    ('-4.25e-18', '0.00e+00')
    """
    return -jax.nn.softplus(gap(logits, labels))


def gap(logits: Float[Array, "*n classes"], labels: Integer[Array, "*n"]) -> Float[Array, "*n"]:
    """``log sum_{k != y} exp(f_k) - f_y``: the cross-entropy is ``log(1 + exp(gap))``, and rises with it.

    Arguments, NaN and errors as for ``log_prob``.

    >>> float(gap(jnp.array([500.0, 0.0]), jnp.array(0)))
    -500.0
    """
    is_label, logits = _of_labels(logits, labels)
    return jax.nn.logsumexp(logits, -1, where=~is_label) - jnp.sum(logits, -1, where=is_label)


def label_logit(logits: Float[Array, "*n classes"], labels: Integer[Array, "*n"]) -> Float[Array, "*n"]:
    """The logit ``f_y`` of each label. Arguments, NaN and errors as for ``log_prob``.

    >>> label_logit(jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([1, 0])).tolist()
    [2.0, 3.0]
    """
    is_label, logits = _of_labels(logits, labels)
    return jnp.sum(logits, -1, where=is_label)


def _of_labels(logits: Array, labels: Array) -> tuple[Array, Array]:
    """A mask of each label's logit, and the logits, which are NaN with their gradients where there is no such logit."""
    check_two_classes(logits.shape)
    is_label = jax.nn.one_hot(as_labels(labels), logits.shape[-1], dtype=bool)
    known = jnp.any(is_label, -1, keepdims=True)
    return is_label, logits * jnp.where(known, 1, jnp.nan).astype(logits.dtype)
