"""How often a classifier is right: on images as they are, and under attack.

``correct`` and ``robustly_correct`` judge each example of a batch; ``accuracy`` averages such a judgement over a data
set in batches of one size, so that a jitted one compiles once. To judge many models with one program, hand the model
over as a pytree, ``jax.tree_util.Partial(model.apply, variables)``, and ``jit`` the judgement.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from pags_jax.attacks import pgd
from pags_jax.images import check_images, check_labels


def correct(apply_fn: Callable[[Any], Any], x: Float[Array, "n ..."], y: Int[Array, " n"]) -> Bool[Array, " n"]:
    """Whether the largest logit is that of the label.

    Args:
      apply_fn: maps images to logits ``(n, classes)``.
      x: images in [0, 1].
      y: labels.

    Returns:
      One truth value for each example.

    Raises:
      ValueError: images or labels that do not fit.

    >>> correct(lambda x: x, jnp.eye(3), jnp.array([0, 1, 1]))
    Array([ True,  True, False], dtype=bool)
    """
    check_images(x)
    check_labels(y, x)
    return jnp.equal(jnp.argmax(apply_fn(x), -1).astype(y.dtype), y)


def robustly_correct(
    apply_fn: Callable[[Any], Any],
    x: Float[Array, "n ..."],
    y: Int[Array, " n"],
    *,
    key: Array,
    eps_l2: Any,
    steps: int,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    unroll: bool = False,
) -> Bool[Array, " n"]:
    """Whether an example is classified rightly both as it is and under two L2 attacks on it.

    One attack (``attacks.pgd``) starts at random, one at the image itself. An upper bound on robust accuracy: neither
    need find the worst case.

    Args:
      apply_fn: maps images to logits ``(n, classes)``, each example by itself.
      x: images in [0, 1].
      y: labels.
      key: PRNG key of the random start.
      eps_l2: radius of each example's ball, traced.
      steps: of the attack.
      bounds: what attacked images are clipped to.
      unroll: as for ``attacks.pgd``.

    Returns:
      One truth value for each example.

    Raises:
      ValueError: what ``attacks.pgd`` refuses.

    >>> apply_fn = lambda x: jnp.stack([x[:, 0], 1 - x[:, 0]], axis=1)  # class 0 above one half
    >>> x, y = jnp.array([[0.6], [0.9]]), jnp.array([0, 0])
    >>> robustly_correct(apply_fn, x, y, key=jax.random.key(0), eps_l2=0.2, steps=10)
    Array([False,  True], dtype=bool)
    """
    right = correct(apply_fn, x, y)
    for start in (None, jnp.zeros_like(x)):
        delta = pgd(apply_fn, x, y, key=key, start=start, eps_l2=eps_l2, steps=steps, bounds=bounds, unroll=unroll)
        right &= correct(apply_fn, x + delta, y)
    return right


def accuracy(
    judge: Callable[[Any, Any, Any], Any],
    x: Shaped[Array, "n ..."],
    y: Int[Array, " labels"],
    *,
    key: Array,
    batch_size: int = 500,
) -> float:
    """The share of examples that a judgement finds right.

    Args:
      judge: ``judge(x, y, key) -> (batch_size,)`` truth values; ``jit`` it. The key differs between batches.
      x: images, as ``judge`` takes them.
      y: labels.
      key: PRNG key.
      batch_size: of every call; the last batch is filled up with copies of the first example, which do not count.

    Returns:
      A share in [0, 1].

    Raises:
      ValueError: no images, not as many labels, or a batch size below 1.

    >>> judge = lambda x, y, key: correct(lambda x: x, x, y)
    >>> accuracy(judge, jnp.eye(4), jnp.array([0, 1, 1, 3]), key=jax.random.key(0), batch_size=3)
    0.75
    """
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1, got {batch_size}")
    if not len(x) or len(y) != len(x):
        raise ValueError(f"expected as many labels as images, and at least one, got {len(y)} and {len(x)}")
    right = []
    for number, start in enumerate(range(0, len(x), batch_size)):
        rows = np.arange(start, start + batch_size)
        inside = rows < len(x)
        batch = np.where(inside, rows, 0)
        right.append(judge(x[batch], y[batch], jax.random.fold_in(key, number))[: inside.sum()])
    return float(np.concatenate(right).mean())
