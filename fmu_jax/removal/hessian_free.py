r"""Hessian-free online removal: training stores one vector for each row, and their sum undoes any set of rows.

Training takes the steps ``x_{t+1} = x_t - (eta / B_t) sum_{i in batch t} grad l_i(x_t)``, ``B_t`` rows in batch ``t``.
The same steps without row ``u``, divided by the same ``B_t``, end to first order at ``x_T + a^u_T``,

    a^u_{t+1} = (I - (eta / B_t) H_t) a^u_t + (eta / B_t) m_t^u grad l_u(x_t),      a^u_0 = 0,

``H_t`` the Hessian of batch ``t``'s sum at ``x_t`` and ``m_t^u`` how often the batch holds ``u``. The recursion is
linear, so that of a set is the sum over its rows: a request costs one addition of ``d`` numbers a row and reads no row
at all. The cost lies in training: each step takes ``n`` Hessian-vector products (a plain step takes one
gradient), ``n d`` numbers are stored, and the vectors are as secret as the rows.

For batches of all rows and a path that starts at the minimiser it is the ``influence`` step of a plain objective, its
inverse Hessian by a Neumann series. Nothing certifies the vectors; for the linear model the certified distance of what
they lead to (``certify``, ``releases.distance_to_retrained``) holds as for any other method, and is that to the
minimiser, not to the end of training without the rows.

Source: Qiao, Zhang, Tang & Wei (2025), "Hessian-free online certified unlearning", ICLR (arXiv 2404.01712). Differs
from the authors' code: a step's gradient is added after the step's own factor, as the difference of two paths has it,
not before; gradients are not clipped.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from fmu_jax import cells
from fmu_jax import objective as objectives
from fmu_jax.data import Data, as_data, check_data, rows_at
from fmu_jax.objective import Objective, Params, Scalar
from fmu_jax.privacy import check_positive
from fmu_jax.removal.update import Update, exact_update
from fmu_jax.showing import one_line
from fmu_jax.tracing import is_traced


class Recollection(NamedTuple):
    """A trained model and the effect of each row on it.

    Attributes:
      params: The end of the path.
      vectors: A pytree like ``params`` whose leaves have a leading axis of rows: adding a row's vector to any model of
        the path's end undoes that row, to first order.
    """

    params: Any
    vectors: Any

    __repr__ = one_line()


@jax.default_matmul_precision("highest")
def recollect(
    objective: Objective,
    init: Params,
    data: Data,
    *,
    steps: int,
    step_size: Scalar,
    batch: int | None = None,
    key: Array | None = None,
) -> Recollection:
    """Trains by (stochastic) gradient descent on the plain objective and stores a vector for each row.

    Args:
      objective: Objective of any model without penalty and reweighing, which are no sums over rows.
      init: Where training starts; no row had a part in it.
      data: The rows, n of them.
      steps: Number of steps of training.
      step_size: ``eta`` of the mean over a batch, > 0.
      batch: Rows of a step, drawn with replacement; None takes all.
      key: PRNG key of the batches, required with ``batch``.

    Returns:
      The ``Recollection``: ``n`` times the memory of the model. Time: ``n`` Hessian-vector products a step, all at
      once, which also takes ``n`` times the memory of one (for the linear model its Hessian instead).

    Raises:
      ValueError: An objective with a penalty or reweighing, a number out of range, bad rows, or batches without a key.

    >>> from fmu_jax import datasets
    >>> data = datasets.synthetic(100, 3, seed=0).train
    >>> init = jnp.zeros(data.x.shape[1], data.x.dtype)
    >>> found = recollect(Objective(l2=0.01), init, data, steps=50, step_size=0.5)
    >>> found.vectors.shape == (len(data.y), *found.params.shape)
    True
    """
    if unseen := objectives.intervention(objective):
        raise ValueError(
            f"`recollect` cannot honour the {unseen} (fairness={objective.fairness}): it would train another model; "
            "pass `fmu_jax.objective.plain(objective)` for a baseline, or fit the fair one and remove by fair_newton"
        )
    check_positive(step_size=step_size)
    if int(steps) != steps or steps < 1:
        raise ValueError(f"`steps` must be a whole number of at least 1, got {steps}")
    if batch is not None and key is None:
        raise ValueError("batches are drawn at random and need `key`")
    if not (batch is None or int(batch) == batch >= 1):
        raise ValueError(f"`batch` must be a whole number of at least 1, got {batch}")
    data = as_data(data)
    check_data(data)
    size = jnp.asarray(step_size, data.x.dtype)
    return Recollection(*_path(objective, init, data, size, key, steps=int(steps), batch=batch))


@partial(jax.jit, static_argnames=("steps", "batch"))
def _path(objective, init, data, step_size, key, *, steps, batch):
    n = data.x.shape[0]

    def of_row(x, row):
        return objectives.gradient(objective, x, jax.tree.map(lambda leaf: leaf[None], row))

    def step(carry, t):
        x, vectors = carry
        drawn = jnp.arange(n) if batch is None else jax.random.randint(jax.random.fold_in(key, t), (batch,), 0, n)
        rows = rows_at(data, drawn)
        share = step_size / jnp.maximum(cells.size(rows), 1)
        if objective.linear:
            bent = vectors @ objectives.hessian(objective, x, rows)
        else:
            bent = jax.vmap(lambda v: objectives.hessian_vector_product(objective, x, rows, v))(vectors)
        pulls = jax.vmap(lambda row: of_row(x, row))(rows)
        vectors = jax.tree.map(lambda a, b, pull: (a - share * b).at[drawn].add(share * pull), vectors, bent, pulls)
        return (optax.tree.add_scale(x, -share, objectives.gradient(objective, x, rows)), vectors), None

    nothing = jax.tree.map(lambda leaf: jnp.zeros((n, *leaf.shape), leaf.dtype), init)
    return jax.lax.scan(step, (init, nothing), jnp.arange(steps, dtype=jnp.int32))[0]


def hessian_free(
    objective: Objective,
    params: Params,
    data: Data,
    remaining: Data,
    *,
    vectors: Params,
    noise: Params | None = None,
) -> Update:
    """Adds the vectors of the rows that are removed: no gradient, no Hessian, no row.

    Args:
      objective: Not read.
      params: The end of the path, or what an earlier removal made of it.
      data: The rows before removal.
      remaining: The same rows with the forgotten ones at weight zero.
      vectors: ``recollect(...).vectors``.
      noise: Refused: the path has none.

    Returns:
      The ``Update``.

    Raises:
      ValueError: Noise, or vectors that are not of these parameters and rows.
    """
    del objective
    if noise is not None and not (is_traced(noise) or all(bool((leaf == 0).all()) for leaf in jax.tree.leaves(noise))):
        raise ValueError("`noise`: the vectors are of a path without perturbation; train with noise by other methods")
    check_vectors(params, data, vectors)
    gone = data.weight - remaining.weight
    moved = jax.tree.map(lambda p, v: p + jnp.tensordot(gone.astype(p.dtype), v, axes=1), params, vectors)
    return exact_update(moved, params, remaining.x.dtype)


def check_vectors(params: Params, data: Data, vectors: Params) -> None:
    """Raises ValueError unless there is one vector like ``params`` for each row."""
    n = data.x.shape[0]
    wanted = jax.tree.map(lambda leaf: (n, *jnp.shape(leaf)), params)
    found = jax.tree.map(jnp.shape, vectors)
    if wanted != found:
        raise ValueError(
            f"`vectors` must be `recollect(...).vectors` of these {n} rows, of shapes {wanted}; got {found}"
        )
