r"""The projective residual update of Izzo et al. (2021), for logistic regression through IRLS weights.

The published algorithm predicts what a model without the ``k`` removed rows would say of them (leave-k-out
predictions of the weighted ridge problem that IRLS solves at ``theta``), then takes the minimum-norm step that attains
those predictions. Written with the hat matrix that is O(n^2) memory, or O(k^3) time. Both disappear: the model without
the rows is ``theta + delta`` with ``delta`` the plain Newton step (IRLS *is* Newton), so the predictions to attain are
``X_k (theta + delta)``, and the minimum-norm step that attains them is the projection of ``delta`` on the span of the
removed rows. Cost O(n d^2), nothing of size k x k or n x n. Once the removed rows span all features (k >= d, as a
rule) the projection does nothing, and the update equals ``newton``.

Differs from the reference: D5 removed rows are read where they stand (the original mixes rows ``i`` and ``ind[i]``);
D6 no hat matrix and no 1e-6 added to its weights, and the ridge is that of what remains, ``(n - k) l2``, since that is
the model to be compared with (Izzo et al. keep a fixed ridge, the original scales it with nothing).
"""

import jax
import jax.numpy as jnp

from fmu_jax import linalg
from fmu_jax.data import Data
from fmu_jax.objective import Objective
from fmu_jax.removal.newton import newton
from fmu_jax.removal.update import Update
from fmu_jax.row_blocks import gram


@jax.jit
def projective(objective: Objective, params, data: Data, remaining: Data, *, noise=None) -> Update:
    """Projective residual update; linear model only, and blind to the fairness penalty.

    Args:
      objective: Objective on which ``params`` was trained; only its ``l2`` (and fixed reweighing weights) are honoured.
      params: Trained parameters, ``(d,)``, taken as the fitted values of the IRLS problem.
      data: The rows before removal.
      remaining: The same rows with the forgotten ones at weight zero.
      noise: Accepted for the common signature; it cancels.

    Returns:
      The ``Update``.

    Source: Izzo et al. (2021), Algorithms 1 and 3; see D5 and D6.
    """
    whole = newton(objective, params, data, remaining, noise=noise)
    removed = (data.weight > 0) & ~(remaining.weight > 0)
    step = _project_on_rows(data.x, removed.astype(data.x.dtype), whole.params - params)
    return whole._replace(params=params + step)


@jax.custom_jvp
def _project_on_rows(rows, chosen, vector):
    """Orthogonal projection of ``vector`` (d,) on the span of ``rows`` (n, d) where ``chosen`` is 1, rank-revealing."""
    values, vectors = linalg.eigh(gram(rows, chosen))
    # Eigenvalues of the Gram matrix are squared singular values, known to about d eps of the largest.
    cut = rows.shape[1] * jnp.finfo(rows.dtype).eps * jnp.maximum(values[-1], 0)
    inside = jnp.where(values > cut, vectors.T @ vector, 0)
    return vectors @ inside


@_project_on_rows.defjvp
def _(primals, tangents):
    """``dP = M + M'`` with ``M = R^+ dR (I - P)``, at constant rank (Golub & Pereyra 1973, equation 4.2)."""
    (rows, chosen, vector), (moved_rows, _, moved) = primals, tangents
    inside = _project_on_rows(rows, chosen, vector)
    rows, moved_rows = (part * chosen[:, None] for part in (rows, moved_rows))
    square = rows.T @ rows
    inverse = linalg.pseudo_inverse(square)
    turned = rows.T @ (moved_rows @ (vector - inside))
    leaving = moved_rows.T @ (rows @ (inverse @ vector))
    return inside, inverse @ (square @ (moved - leaving) + turned) + leaving
