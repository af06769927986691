r"""Bounds on how far the unlearned model is from a retrained one: residuals, (epsilon, delta), distances.

``theta^-`` are the unlearned parameters, ``theta'`` the exact minimiser of the remaining objective ``F'``, ``s`` the
point from which the last step was taken, ``D = theta^- - s``, ``om_i`` the row weights of ``F'`` and
``G = X' diag(om) X``. The quadratic terms of ``F'`` are exact under a step, so only the losses leave a residual; with
``L = 1/(6 sqrt 3) = max |sigmoid''|``

    grad F'(theta^-) = [grad F'(s) + H'(s) D] + X'v,   |v_i| <= om_i (L/2) (x_i.D)^2.

The bracket vanishes for an exact Newton step and is computed and added, so the bounds hold for any step whatever:

    exact     r = |grad F'(theta^-)|                                one O(n d) pass
    Gram      (L/2) D' K D,  K = X' diag(om |x|) X                  no row needed once K is known: O(d^2)
    row       min(Gram, (L/2) |G|_2^1/2 | sqrt(om) (X D)^2 |_2)     one pass

Gram is the triangle inequality, ``|X'v| <= sum_i |v_i| |x_i|``; the other term of row is that of Cauchy and Schwarz.
``paper_data_dependent = 0.25 |X_w|_2 |D| |X_w D|`` and ``paper_worst_case`` (Theorem 1) are the originals, as their
code evaluates them, for comparison: they hold for a converged start only.

Differs from the reference: D8 (see ``privacy``); D9 row norms are measured (they are up to sqrt 2 once the bias column
is appended, the originals assume 1); D10 the residual, and with it epsilon and the bounds, is widened by the rounding
error of the gradient, in whatever dtype it was computed.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fmu_jax import cells, linalg
from fmu_jax import objective as objectives
from fmu_jax.curvature import mapped_norm
from fmu_jax.distances import check_certifiable, local_distance, retrained_region
from fmu_jax.fitting import check_params
from fmu_jax.objective import Objective, Scalar
from fmu_jax.privacy import certified_epsilon, check_positive, check_probability
from fmu_jax.removal import Removal
from fmu_jax.rounding import (
    block_gram,
    block_sum,
    depth,
    gradient_with_error,
    gram_depth,
    norm_bound,
    roundings,
    widened_norm,
)
from fmu_jax.row_blocks import by_row
from fmu_jax.showing import one_line

#: Largest |second derivative| of the logistic function, at log-odds log(2 + sqrt 3).
LOGISTIC_CURVATURE = 1 / (6 * 3**0.5)


@dataclasses.dataclass(frozen=True)
class Certificate:
    """Bounds on ``theta^-`` that need no retraining; every field is a scalar, and norms are in sum form.

    Attributes:
      residual_norm: ``|grad F'(theta^-)|``, widened by ``rounding_margin``.
      row_bound, gram_bound: Upper bounds of the residual from the length of the step, plus ``rounding_margin``; never
        below ``residual_norm``.
      paper_data_dependent, paper_worst_case: The originals' figures. The former bounds the losses, for any number
        of groups; the latter is for two groups, and NaN for more.
      rounding_margin: Bound on the rounding error in the residual.
      objective_perturbation_epsilon: The paper's epsilon, ``certified_epsilon`` of the residual: ``(residual_norm /
        sigma) sqrt(2 ln(1.5/delta))`` up to about 1, more beyond; infinite when there is no noise. It assumes that the
        residual does not depend on ``b``, although it does: see ``privacy``. ``releases`` gives a guarantee without
        that assumption, from the distances below.
      distance_bound: ``residual_norm / (n_w l2) >= |theta^- - theta'|`` by strong convexity (kappa).
      local_distance_bound: The same by the curvature at ``theta^-``; usually far smaller in float64; infinite where the
        bound does not apply.
      sigma, delta: What the epsilon was computed for.
      dtype: Floating-point type in which all of it was computed.
    """

    residual_norm: Scalar
    row_bound: Scalar
    gram_bound: Scalar
    paper_data_dependent: Scalar
    paper_worst_case: Scalar
    rounding_margin: Scalar
    objective_perturbation_epsilon: Scalar
    distance_bound: Scalar
    local_distance_bound: Scalar
    sigma: Scalar
    delta: Scalar
    dtype: str

    __repr__ = one_line(values=4)

    @property
    def epsilon(self) -> Scalar:
        """The paper's figure under its assumption; a short name of ``objective_perturbation_epsilon``."""
        return self.objective_perturbation_epsilon


_CERTIFICATE_FIELDS = [field.name for field in dataclasses.fields(Certificate) if field.name != "dtype"]
jax.tree_util.register_dataclass(Certificate, data_fields=_CERTIFICATE_FIELDS, meta_fields=["dtype"])


@jax.default_matmul_precision("highest")
def certify(objective: Objective, before, removal: Removal, *, sigma: Scalar, delta: Scalar, noise=None) -> Certificate:
    """Certifies a removal from the linear model.

    The exact residual and the distances hold for any method and any start; the bounds hold for any single step. The
    epsilon is the paper's, for the residual under this draw of the noise ``b``; its theorem takes the residual as
    fixed, although it depends on ``b`` (``privacy`` says what that can cost). To publish with a guarantee, add fresh
    noise to the parameters: ``releases`` takes the distances certified here.

    Args:
      objective: Objective of the training and of the removal.
      before: The parameters before the removal, ``(d,)``.
      removal: Removal from ``remove``.
      sigma: Standard deviation of the objective perturbation, > 0.
      delta: Failure probability, in (0, 1).
      noise: The perturbation itself. None or zero gives an infinite epsilon: without noise nothing is
        indistinguishable.

    Returns:
      A ``Certificate``.

    Raises:
      ValueError: ``sigma`` or ``delta`` out of range, or a model that is not one linear model: a non-convex objective
        admits no such certificate, as its gradient says nothing of the distance to a retrained model.

    >>> from fmu_jax import datasets, fit, remove, sample_noise
    >>> data = datasets.synthetic(500, 3, seed=0).train
    >>> objective = Objective(l2=1e-2, fairness=1.0)
    >>> noise = sample_noise(data.x[0], key=jax.random.key(0), sigma=1.0)
    >>> params = fit(objective, data, noise=noise).params
    >>> removal = remove(objective, params, data, [3, 14, 15], noise=noise)
    >>> certificate = certify(objective, params, removal, sigma=1.0, delta=1e-5, noise=noise)
    >>> bool(certificate.residual_norm <= certificate.row_bound <= certificate.gram_bound)
    True
    """
    check_certifiable(objective, removal)
    check_params(objective, before, removal.data, None)
    check_positive(sigma=sigma)
    check_probability(delta=delta)
    # A call of its own, so that its temporary copies of the rows are gone before the next ones are made.
    region = retrained_region(objective, removal, noise=noise)
    return _certify(objective, before, removal, region, sigma, delta, noise)


@jax.jit
def _certify(objective, before, removal, region, sigma, delta, noise) -> Certificate:
    data, params, step = removal.data, removal.params, removal.params - removal.start
    x, om = data.x, objectives.row_weights(objective, data)
    residual, margin = region.residual_norm, region.rounding_margin

    at_start, start_margin = gradient_with_error(objective, removal.start, data, noise)
    left = at_start + objectives.hessian_vector_product(objective, removal.start, data, step)
    offset = widened_norm(left, start_margin + margin)
    moved, size = by_row(lambda x: (mapped_norm(step[None], x) ** 2, norm_bound(x)), x, only_on_cpus=True)
    # Positive terms: what is left of rounding is relative.
    half = LOGISTIC_CURVATURE / 2 * (1 + roundings(depth(x.shape[0]) + 16, x.dtype))
    gram = offset + half * block_sum((om * size * moved)[:, None])[0]
    gram = jnp.maximum(gram, residual)
    wide = _spectral_norm(x, om)
    row = offset + half * wide * linalg.root(block_sum((om * moved**2)[:, None])[0])

    total = before - params
    was = data._replace(weight=jnp.maximum(data.weight, removal.forgotten.astype(x.dtype)))
    dependent = 0.25 * (_spectral_norm(x, data.weight) if objective.reweigh else wide) * linalg.norm(total)
    dependent *= linalg.norm(data.weight * (x @ total))
    # Theorem 1 is of the two-group penalty; nothing is claimed in its name for another.
    n_b = cells.counts(was)[1].sum() if data.groups == 2 else jnp.full((), jnp.nan, x.dtype)
    worst = paper_worst_case(linalg.norm(before), objective.l2, n=cells.size(was), n_b=n_b)

    noisy = jnp.zeros((), bool) if noise is None else jnp.any(noise != 0)
    bound = jnp.where(noisy, certified_epsilon(residual, sigma, delta), jnp.inf)
    return Certificate(
        residual_norm=residual,
        row_bound=jnp.clip(row, residual, gram),
        gram_bound=gram,
        paper_data_dependent=dependent,
        paper_worst_case=worst,
        rounding_margin=margin,
        objective_perturbation_epsilon=bound,
        distance_bound=region.distance,
        local_distance_bound=local_distance(region),
        sigma=jnp.asarray(sigma, x.dtype),
        delta=jnp.asarray(delta, x.dtype),
        dtype=str(x.dtype),
    )


def _spectral_norm(x, weight):
    """Largest singular value of ``diag(sqrt weight) X``, from the d x d Gram matrix, rounded up."""
    gram = block_gram(x, weight)
    slack = roundings(gram_depth(*x.shape) + 64 * x.shape[1], x.dtype) * jnp.trace(gram)
    return jnp.sqrt(jnp.maximum(linalg.eigenvalues(gram)[-1], 0) + slack)


def paper_worst_case(norm: Scalar, l2: Scalar, *, n: Scalar, n_b: Scalar) -> Array:
    """Theorem 1 of Oesterling et al. (2024) for one removed row, as the authors' scripts evaluate it.

    ``0.25 / (l2^2 (n - 1)) (2 + norm (8 (n - 1) / n_b^2)^2)``.

    Args:
      norm: ``|theta|`` before the removal.
      l2: Ridge strength per row.
      n: Number of rows before the removal.
      n_b: Number of rows of group 1 before the removal.

    Returns:
      The bound on the residual in sum form.
    """
    return jnp.asarray(0.25 / (l2**2 * (n - 1)) * (2 + norm * (8 * (n - 1) / n_b**2) ** 2))
