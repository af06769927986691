"""KLoM: the divergence of the margins of unlearned models from those of retrained ones, example by example.

Source: Georgiev et al. (2024), "Attribute-to-Delete: machine unlearning via datamodel matching", section 2 and
appendix E: the Kullback-Leibler divergence of binned margins, with their 20 bins, clipping and floor. Margins are the
log-odds of the label: its logit less the log of the sum of the other classes' exponentials.

The benchmark of the protocol (RoyRin/data-unlearning-bench, ``unlearning_bench/eval.py``) computes the same but for a
slip: ``numpy.digitize`` puts the largest of all margins beyond the last bin, so that it counts nowhere.
``closed=False`` does as that code does. Its ``run.py`` passes retrained margins first, which gives the divergence
``KL(retrained | unlearned)``: to compare with its stored results, swap the arguments. ``datasets.load_margins`` reads
the margins that it stores.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fmu_jax.arrays import as_floats, check_ordered

#: Margins are clipped to [-CLIP, CLIP].
CLIP = 100.0
#: Least probability of a bin of the retrained models, which bounds a divergence by about log(1 / FLOOR) = 11.5.
FLOOR = 1e-5


def klom(unlearned: Any, oracle: Any, *, bins: int = 20, closed: bool = True) -> Float[Array, " rows"]:
    """Divergence ``KL(unlearned | retrained)`` of the binned margins of each example.

    Bins divide the joint range of both samples evenly. Two samples of one distribution do not give 0 but about
    ``bins / models``.

    Args:
      unlearned: Margins ``(models, rows)`` of unlearned models, on examples that they were trained on and unlearned.
      oracle: Margins ``(oracles, rows)`` of retrained models.
      bins: Number of bins, at least 2.
      closed: Whether the last bin holds its right end; False leaves out the largest margin, as the benchmark's code.

    Returns:
      ``(rows,)``, >= 0; summarise by mean and quantiles.

    Raises:
      ValueError: The margins are NaN, differ in their rows, hold fewer than 2 models, or ``bins`` is below 2.

    >>> margins = jnp.linspace(-1.0, 1.0, 100)[:, None]
    >>> [round(float(klom(margins + shift, margins)[0]), 1) for shift in (0.0, 0.4, 3.0)]
    [0.0, 1.6, 9.4]
    """
    unlearned, oracle = as_floats(unlearned, "unlearned"), as_floats(oracle, "oracle")
    check_ordered(unlearned=unlearned, oracle=oracle)
    shapes = unlearned.shape, oracle.shape
    if len(shapes[0]) != 2 or len(shapes[1]) != 2 or shapes[0][1] != shapes[1][1]:
        raise ValueError(f"margins must have shapes (models, rows) with the same rows, got {shapes[0]}, {shapes[1]}")
    if min(shapes[0][0], shapes[1][0]) < 2:
        raise ValueError(f"KLoM compares distributions over models and needs at least 2, got {shapes[0]}, {shapes[1]}")
    if bins < 2:
        raise ValueError(f"`bins` must be at least 2, got {bins}")
    return _divergence(unlearned, oracle, bins, closed)


@partial(jax.jit, static_argnames=("bins", "closed"))
def _divergence(p, q, bins, closed):
    return jax.vmap(partial(_of_row, bins=bins, closed=closed), in_axes=1)(p, q)


def _of_row(p, q, bins, closed):
    p, q = jnp.clip(p, -CLIP, CLIP), jnp.clip(q, -CLIP, CLIP)
    low, high = jnp.minimum(p.min(), q.min()), jnp.maximum(p.max(), q.max())
    edges = jnp.linspace(low, jnp.where(high > low, high, low + 1), bins + 1)

    def shares(values):
        counts = jnp.histogram(values, edges)[0]
        if not closed:
            counts = counts.at[-1].add(-jnp.sum(values == edges[-1]).astype(counts.dtype))
        counts = counts.astype(values.dtype)
        return counts / jnp.maximum(counts.sum(), 1)

    p, q = shares(p), shares(q)
    q = jnp.where(p > 0, jnp.maximum(q, FLOOR), q)
    ratio = jnp.where(p > 0, p, 1) / jnp.where(p > 0, q / q.sum(), 1)
    return jnp.maximum(jnp.sum(p * jnp.log(ratio)), 0)
