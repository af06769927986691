r"""The distance, and with it the mu and the epsilon, that it would take to hide the removal of each row alone.

A release hides a removal at ``mu = Delta* / s`` with the admitted distance ``Delta*`` and the scale ``s`` fixed
beforehand. Most rows' removals move the model far less than that. With ``Delta_i`` the certified distance after row
``i`` alone is removed, the release of that removal is ``Delta_i / s``-Gaussian-DP beside the one after retraining: the
proof is that of ``releases``, of these two worlds. It is a statement about one row, for those who plan or audit
(per-instance privacy: Wang 2019, "Per-instance differential privacy"), and **what it must not be used for** is this:
``Delta_i`` depends on the data, so neither it nor a scale chosen by it may be published; a scale fitted to the row that
it hides tells how far that row moved the model, and what is left unhidden in a series is what was admitted.

Benarroch, Atif & Cappé (2026, arXiv 2602.15602) fit the noise of Langevin training and unlearning to the row, for ridge
regression, by a sensitivity that holds with high probability. We could not read their theorem, and nothing of it is
used: the distances here hold for certain, given the data.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fmu_jax.data import Data, as_data
from fmu_jax.objective import Objective
from fmu_jax.releases.publishing import distance_to_retrained
from fmu_jax.removal import remove
from fmu_jax.removal.methods import check_forget
from fmu_jax.tracing import eager_only


@eager_only
def row_distances(
    objective: Objective,
    params: Array,
    data: Data,
    rows: Any = None,
    *,
    noise: Array | None = None,
    batch_size: int = 64,
) -> Float[np.ndarray, " k"]:
    """Certified distance to the retrained model after each row alone is removed by ``fair_newton``.

    Args:
      objective: Objective for the linear model.
      params: The trained parameters, ``(d,)``.
      data: Rows on which it was trained.
      rows: Rows to remove, each alone: indices or a mask; None is all rows of weight one.
      noise: The perturbation of the training objective.
      batch_size: Rows computed at once; each takes one pass over all rows, O(n d^2).

    Returns:
      ``(k,)``, in ascending order of rows. Divided by a release's scale it is that row's mu, for
      ``privacy.gaussian_epsilon(mu, 1.0, delta)``; for neither may be published, see the module.

    Raises:
      ValueError: A model that is not linear; rows as for ``remove``.

    >>> from fmu_jax import datasets, fit
    >>> data = datasets.synthetic(200, 3, seed=0).train
    >>> objective = Objective(l2=1e-2, fairness=1.0)
    >>> distances = row_distances(objective, fit(objective, data).params, data, [3, 14, 15])
    >>> bool((distances < 1e-3).all())
    True
    """
    if not objective.linear:
        raise ValueError("only the linear model has a certified distance; for a network see noisy_finetuning")
    data = as_data(data)
    chosen = np.flatnonzero(np.asarray(data.weight) > 0 if rows is None else np.asarray(check_forget(data, rows)))
    return np.asarray(_distances(objective, params, data, chosen, noise, batch_size=batch_size))


@partial(jax.jit, static_argnames="batch_size")
def _distances(objective, params, data, rows, noise, *, batch_size):
    def of_row(row):
        gone = jnp.arange(data.weight.shape[0]) == row
        removal = remove(objective, params, data, gone, noise=noise, throw=False)
        return distance_to_retrained(objective, removal, noise=noise)

    return jax.lax.map(of_row, rows, batch_size=batch_size)
