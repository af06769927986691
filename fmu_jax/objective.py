"""The fair, perturbed training objective, for the linear model and for any differentiable one.

Sum form, with rows ``i`` of weight ``w_i`` in {0, 1}, ``n_w = sum w``, log-odds ``f_i``:

    F(theta; w) = sum_i w_i r_i l(f_i, y_i) + n_w (l2/2) |theta|^2 + n_w fairness R(f; w) + <b, theta>

``l`` is the logistic loss, ``R`` a penalty of ``fmu_jax.penalties``, ``b`` the objective perturbation (secret, drawn
once, kept for every removal) and ``r_i`` = 1, or with ``reweigh`` the weights of Kamiran & Calders (2012),
``N_g N_y / (n_w N_gy)``: functions of cell counts, so the objective of what remains is exact after any removal.
The paper's mean form is ``F / n_w`` (Oesterling et al. 2024, section 4).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from fmu_jax import cells, penalties
from fmu_jax.arrays import as_floats, as_numbers
from fmu_jax.data import Data
from fmu_jax.row_blocks import gram, weighted_sum
from fmu_jax.showing import one_line
from fmu_jax.tracing import is_traced

Params = PyTree[Float[Array, "..."]]
Scalar = Any  # a Python number or a traced 0-d array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """What is minimised.

    In sum form over rows i of weight w_i (1 present, 0 removed), with n = sum_i w_i:

        F(theta) = sum_i w_i log(1 + exp(-t_i f_i)) + n (l2 / 2) |theta|^2 + n fairness R(f) + b . theta

    f_i = predict(theta, x_i) are the log-odds (x_i . theta for the linear model, whose last feature is the constant 1),
    t_i = 2 y_i - 1 is the label as +1 or -1, b the ``noise`` that ``fit`` is given (0 without), and R the ``penalty``:
    for ``equalized_odds``, with n_a and n_b rows in the two groups a and b (more groups: the sum over all pairs),

        R = ( 1 / (n_a n_b) * sum over i in a and j in b with y_i = y_j of (f_i - f_j) )^2

    The ridge takes in the constant's weight. scikit-learn's ``LogisticRegression(C=1 / (n * l2), fit_intercept=False)``
    on the same x (the constant included) has the same minimiser where fairness and noise are 0. With ``reweigh`` each
    row's logarithm is multiplied by N_g N_y / (n N_gy), from the numbers of rows of its group, label and both.
    Numbers and label matches are traced: a sweep over them compiles once; the model is static.

    Attributes:
      l2: Ridge strength per row, >= 0 (``lambda`` of the paper).
      fairness: Weight of the fairness penalty, >= 0 (``gamma``).
      penalty: A key of ``fmu_jax.penalties.PENALTIES``, or a ``Penalty`` of your own.
      reweigh: Multiply each row's loss by its Kamiran-Calders weight.
      predict: ``predict(params, x) -> (n,)`` log-odds; None is the linear model ``x @ params``. Arrays that a
        ``jax.tree_util.Partial`` binds, such as frozen parameters, are traced as the numbers are.

    Raises:
      ValueError: Unknown penalty, or a concrete ``l2`` or ``fairness`` that is negative or not finite.

    >>> Objective(l2=1e-4, fairness=1.0).penalty
    'equalized_odds'
    """

    l2: Scalar
    fairness: Scalar = 0.0
    penalty: str | penalties.Penalty = "equalized_odds"
    reweigh: bool = False
    predict: Callable[[Any, Any], Any] | None = None

    __repr__ = one_line()

    def __post_init__(self):
        penalties.check(self.penalty)
        for name in ("l2", "fairness"):
            value = getattr(self, name)
            known = isinstance(value, int | float | np.generic | np.ndarray | jax.Array)
            if not known:
                raise ValueError(f"`{name}` must be a number, got {value!r}")
            if known and not is_traced(value):
                numbers = np.asarray(as_numbers(np.asarray(value) if np.isscalar(value) else value, name))
                if not np.all((numbers >= 0) & np.isfinite(numbers)):
                    raise ValueError(f"`{name}` must be finite and >= 0, got {value}")

    @property
    def linear(self) -> bool:
        """Whether the model is linear, so that the objective is convex and has closed forms."""
        return self.predict is None


def _flatten(objective: Objective):
    bound, static = None, objective.predict
    if isinstance(static, jax.tree_util.Partial):
        bound, static = static, None
    numbers = objective.l2, objective.fairness, penalties.on_device(objective.penalty)
    return (*numbers, bound), (objective.reweigh, static)


def _unflatten(static, traced) -> Objective:
    # Past __init__: while tracing, the fields hold whatever JAX puts into a tree.
    objective = object.__new__(Objective)
    *numbers, bound = traced
    reweigh, predict = static
    values = (*numbers, reweigh, predict if bound is None else bound)
    for name, value in zip(("l2", "fairness", "penalty", "reweigh", "predict"), values, strict=True):
        object.__setattr__(objective, name, value)
    return objective


jax.tree_util.register_pytree_node(Objective, _flatten, _unflatten)


def plain(objective: Objective) -> Objective:
    """The same objective without any fairness intervention."""
    return dataclasses.replace(objective, fairness=0.0, reweigh=False)


def intervention(objective: Objective) -> str | None:
    """The name of what ``plain`` would take away; None where that is nothing. A traced weight counts as a penalty."""
    if objective.reweigh:
        return "reweighing"
    if not is_traced(objective.fairness) and float(objective.fairness) == 0:
        return None
    return f"penalty {objective.penalty!r}" if isinstance(objective.penalty, str) else "fairness penalty"


def sample_noise(like: Params, *, key: Array, sigma: Scalar) -> Params:
    """Draws the objective perturbation ``b ~ N(0, sigma^2 I)``.

    The draw is the secret of the certificate: keep it and its key private, and reuse it for every removal.

    Differs from the reference: D12 all randomness comes from a key or a seed that the caller names (the original has
    none, so that no figure can be repeated).

    Args:
      like: Parameters whose shapes and dtypes the noise takes; for the linear model any ``(d,)`` array.
      key: PRNG key, required.
      sigma: Standard deviation, >= 0.

    Returns:
      A pytree like ``like``.

    Raises:
      ValueError: ``sigma`` is negative or not finite.
    """
    if not is_traced(sigma) and not 0 <= float(sigma) < float("inf"):
        raise ValueError(f"`sigma` must be finite and >= 0, got {sigma}")
    return _draw(key, like, sigma)


@jax.jit
def _draw(key, like, sigma):
    return optax.tree.scale(sigma, optax.tree.random_like(key, like))


def logits(objective: Objective, params: Params, x: Float[Array, "n ..."]) -> Float[Array, " n"]:
    """Log-odds of label 1 for each row, ``(n,)``; ValueError if ``predict`` gives another shape."""
    if objective.predict is None:
        return x @ params
    scores = objective.predict(params, x)
    if jnp.shape(scores) != x.shape[:1]:
        raise ValueError(
            f"`predict` must return one score a row, {x.shape[:1]}, got {jnp.shape(scores)}; take [:, 0] of a layer of "
            "one unit"
        )
    return scores


def predict_labels(objective: Objective, params: Params, x: Any) -> Array:
    """Predicted labels: 1 where the log-odds are positive.

    Args:
      objective: Of the model.
      params: The model's parameters.
      x: ``(n, ...)`` features, as for ``make_data``.

    Returns:
      ``(n,)`` int32.

    Raises:
      ValueError: Features that are no finite numbers, or not as many as the linear model has parameters.
    """
    x = as_floats(x, "x", finite=True)
    if objective.linear and (x.ndim != 2 or x.shape[-1:] != jnp.shape(params)[-1:]):
        raise ValueError(f"`x` must have shape (n, {jnp.shape(params)[-1]}), as the parameters say; got {x.shape}")
    return _labels(objective, params, x)


@jax.jit
def _labels(objective, params, x):
    return (logits(objective, params, x) > 0).astype(jnp.int32)


def row_weights(objective: Objective, data: Data) -> Float[Array, " n"]:
    """Weight of each row's loss: ``w_i``, or ``w_i N_g N_y / (n_w N_gy)`` with ``reweigh`` (Kamiran & Calders 2012)."""
    if not objective.reweigh:
        return data.weight
    return data.weight * cells.spread(reweighing(cells.counts(data)), data)


def reweighing(counts: Float[Array, "groups 2"]) -> Float[Array, "groups 2"]:
    """Weight of a row by its cell, ``N_g N_y / (n_w N_gy)``, from the cell counts, [group, label]."""
    share = counts / jnp.maximum(counts.sum(), 1)
    expected = share.sum(axis=1, keepdims=True) * share.sum(axis=0, keepdims=True)
    return expected / jnp.where(share > 0, share, 1)


def value(objective: Objective, params: Params, data: Data, noise: Params | None = None) -> Float[Array, ""]:
    """``F``, differentiable in ``params`` for any model.

    Args:
      objective: What to evaluate.
      params: ``(d,)`` for the linear model, else whatever ``objective.predict`` takes.
      data: The rows.
      noise: The perturbation ``b``, a pytree like ``params``; None is zero.

    Returns:
      The scalar ``F`` in sum form.
    """
    return value_at(objective, params, logits(objective, params, data.x), data, noise)


def value_at(
    objective: Objective, params: Params, scores: Float[Array, " n"], data: Data, noise: Params | None = None
) -> Float[Array, ""]:
    """``value``, where the scores of the rows are known."""
    losses = jax.nn.softplus(scores) - data.y.astype(scores.dtype) * scores
    n = cells.size(data)
    total = jnp.dot(row_weights(objective, data), losses)
    total += n * objective.l2 / 2 * optax.tree.norm(params, squared=True)
    total += n * objective.fairness * penalties.from_scores(objective.penalty, scores, data)
    return total if noise is None else total + optax.tree.vdot(noise, params)


def gradient(objective: Objective, params: Params, data: Data, noise: Params | None = None) -> Params:
    """``grad F``: closed form for the linear model, reverse mode otherwise. A pytree like ``params``."""
    if not objective.linear:
        return jax.grad(value, argnums=1)(objective, params, data, noise)
    scores = data.x @ params
    n = cells.size(data)
    by_score = row_weights(objective, data) * (jax.nn.sigmoid(scores) - data.y.astype(scores.dtype))
    by_score += n * objective.fairness * penalties.score_gradient(objective.penalty, scores, data)
    total = weighted_sum(data.x, by_score) + n * objective.l2 * params
    return total if noise is None else total + noise


def quadratic_part(objective: Objective, data: Data) -> Float[Array, "d d"]:
    """Hessian of everything but the losses, for the linear model: ``A = n_w (l2 I + 2 fairness Q)``, ``(d, d)``."""
    q = penalties.quadratic_form(objective.penalty, data)
    return cells.size(data) * (objective.l2 * jnp.eye(q.shape[0], dtype=q.dtype) + 2 * objective.fairness * q)


def curvature(objective: Objective, params: Float[Array, " d"], data: Data) -> Float[Array, "d d"]:
    """Hessian of the weighted losses, for the linear model: ``X' diag(w r p (1 - p)) X``, ``(d, d)``."""
    p = jax.nn.sigmoid(data.x @ params)
    return gram(data.x, row_weights(objective, data) * p * (1 - p))


def hessian(objective: Objective, params: Float[Array, " d"], data: Data) -> Float[Array, "d d"]:
    """Dense Hessian of ``F`` for the linear model, in closed form."""
    return curvature(objective, params, data) + quadratic_part(objective, data)


def hessian_vector_product(objective: Objective, params: Params, data: Data, vector: Params) -> Params:
    """``(Hessian of F) v``, a pytree like ``params``: closed form for the linear model, else forward over reverse."""
    if objective.linear:
        return gauss_newton_vector_product(objective, params, data, vector)
    return jax.jvp(lambda p: gradient(objective, p, data), (params,), (vector,))[1]


def gauss_newton_vector_product(objective: Objective, params: Params, data: Data, vector: Params) -> Params:
    """``(J' B J + n_w l2 I) v``, ``J`` = d scores/d params, ``B`` = Hessian of loss plus penalty in the scores.

    Positive semi-definite for every model, and equal to the Hessian for the linear one (Schraudolph 2002).
    """
    if objective.linear:
        scores, tangent = data.x @ params, data.x @ vector
    else:
        scores, tangent = jax.jvp(lambda p: logits(objective, p, data.x), (params,), (vector,))
    p = jax.nn.sigmoid(scores)
    n = cells.size(data)
    curved = row_weights(objective, data) * p * (1 - p) * tangent
    # R is quadratic in the scores, so its Hessian times v is its gradient at v.
    curved += n * objective.fairness * penalties.score_gradient(objective.penalty, tangent, data)
    if objective.linear:
        return weighted_sum(data.x, curved) + n * objective.l2 * vector
    (product,) = jax.vjp(lambda p: logits(objective, p, data.x), params)[1](curved)
    return optax.tree.add_scale(product, n * objective.l2, vector)
