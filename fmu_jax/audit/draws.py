"""Models of one removal under many noise draws (trained, unlearned and retrained), for the empirical epsilon.

The guarantee is about the distribution of the parameters over the objective perturbation ``b``. So the same rows are
trained on, unlearned and retrained without under thousands of independent draws, in batches of vectorised fits.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fmu_jax import objective as objectives
from fmu_jax.batches import map_in_batches
from fmu_jax.data import Data
from fmu_jax.fitting import NotConvergedError, fit
from fmu_jax.linalg import solve_positive
from fmu_jax.objective import Objective, Scalar, sample_noise
from fmu_jax.privacy import check_positive
from fmu_jax.removal import METHODS, remove
from fmu_jax.removal.methods import ENSEMBLES
from fmu_jax.rounding import gradient_with_error
from fmu_jax.showing import one_line
from fmu_jax.tracing import is_traced

#: The method that unlearns nothing: what an audit must catch.
NO_REMOVAL = "no_removal"
#: Every method that an audit knows.
AUDITED = (*METHODS, NO_REMOVAL)
#: Those whose outcome is random through the perturbation, so that an epsilon is defined for them.
PERTURBED = tuple(name for name in AUDITED if name not in ENSEMBLES)


class Draws(NamedTuple):
    """Models of one removal, one noise draw a row.

    Attributes:
      trained: Parameters trained on all rows, ``(models, d)``.
      unlearned: By method, the same after the removal, with the same draw of the noise, ``(models, d)``.
      retrained: Trained without the forgotten rows, with draws of their own, ``(models, d)``.
      residual: By method, ``|grad F'|`` at the unlearned parameters, widened by its rounding error as ``certify`` does,
        ``(models,)``.
      converged: Every solver inside reached its tolerance.
    """

    trained: Float[Array, "models d"]
    unlearned: dict[str, Float[Array, "models d"]]
    retrained: Float[Array, "models d"]
    residual: dict[str, Float[Array, " models"]]
    converged: Bool[Array, ""]

    __repr__ = one_line()


@jax.default_matmul_precision("highest")
def draw_models(
    objective: Objective,
    data: Data,
    forget,
    *,
    key: Array,
    sigma: Scalar,
    models: int,
    methods: Sequence[str] = ("fair_newton", NO_REMOVAL),
    batch_size: int = 16,
) -> Draws:
    """Trains, unlearns and retrains under many independent draws of the objective perturbation.

    Fits start from the noiseless optimum of the same rows and its Newton step for the draw, which changes the path to
    the optimum and not the optimum.

    Args:
      objective: Objective for the linear model.
      data: The rows to train on.
      forget: The rows to remove, as for ``remove``.
      key: PRNG key, required.
      sigma: Standard deviation of the perturbation, > 0.
      models: Number of draws.
      methods: Methods of ``PERTURBED``; methods that cannot honour a fairness intervention run all the same.
      batch_size: Draws that are computed at once. Few fit a CPU's cache, more fill an accelerator.

    Returns:
      The ``Draws``; what was removed is certified by ``privacy.certified_epsilon(residual, sigma, delta)``.

    Raises:
      ValueError: Bad rows (see ``fit`` and ``remove``), an unknown method, or a number out of range.
      NotConvergedError: Some model did not reach the tolerance of ``fit``, or a method failed on it.

    >>> from fmu_jax import datasets
    >>> data = datasets.synthetic(200, 3, seed=0).train
    >>> objective = Objective(l2=1e-2, fairness=1.0)
    >>> draws = draw_models(objective, data, [3, 14], key=jax.random.key(0), sigma=1.0, models=50)
    >>> draws.unlearned["fair_newton"].shape
    (50, 4)
    """
    check_audit(objective, methods, PERTURBED, sigma=sigma, models=models, batch_size=batch_size)
    start = fit(objective, data).params
    removal = remove(objective, start, data, forget, method="retrain")
    draws = _draw(objective, data, removal, start, key, sigma, models, tuple(methods), batch_size)
    if not is_traced(draws.converged) and not draws.converged:
        raise NotConvergedError("some of the models drawn did not converge; raise `l2`, lower `sigma`, or use float64")
    return draws


def check_audit(objective: Objective, methods: Sequence[str], known: Sequence[str], *, sigma, **counts: int) -> None:
    """Raises ValueError for a model that is not linear, a method that is not known, or a number out of range."""
    if not objective.linear:
        raise ValueError("audits train thousands of models and are defined for the linear model only")
    check_positive(sigma=sigma)
    for name, count in counts.items():
        if int(count) != count or count < 1:
            raise ValueError(f"`{name}` must be a whole number of at least 1, got {count}")
    for method in methods:
        if method not in known:
            raise ValueError(f"cannot audit method {method!r} here; known: {', '.join(known)}")


def unlearn(objective: Objective, params, data: Data, forget, *, method: str, noise, init) -> tuple[Array, Array]:
    """Parameters after a removal by one of ``PERTURBED``, and whether its solver converged.

    Args:
      objective: Objective on which ``params`` was trained.
      params: The trained parameters.
      data: Rows on which it was trained.
      forget: ``(n,)`` bool.
      method: One of ``PERTURBED``; ``no_removal`` returns ``params``.
      noise: The perturbation that ``params`` was trained with.
      init: Where retraining starts; it must not have seen the forgotten rows.
    """
    if method == NO_REMOVAL:
        return params, jnp.ones((), bool)
    options = {"init": init} if method == "retrain" else {}
    removal = remove(objective, params, data, forget, method=method, noise=noise, allow_unfair=True, **options)
    return removal.params, removal.converged


@partial(jax.jit, static_argnames=("models", "methods", "batch_size"))
def _draw(objective, data, removal, start, key, sigma, models, methods, batch_size) -> Draws:
    remaining, restart = removal.data, removal.params
    like = jnp.zeros((models, start.shape[0]), start.dtype)
    noises = tuple(sample_noise(like, key=part, sigma=sigma) for part in jax.random.split(key))
    curved, recurved = (objectives.hessian(objective, *at) for at in ((start, data), (restart, remaining)))

    def one(noises):
        noise, fresh = noises
        trained = fit(objective, data, noise=noise, init=start - solve_positive(curved, noise))
        retrained = fit(objective, remaining, noise=fresh, init=restart - solve_positive(recurved, fresh))
        init = restart - solve_positive(recurved, noise)
        converged = trained.converged & retrained.converged
        unlearned, residual = {}, {}
        for method in methods:
            params, fine = unlearn(
                objective, trained.params, data, removal.forgotten, method=method, noise=noise, init=init
            )
            grad, margin = gradient_with_error(objective, params, remaining, noise)
            unlearned[method], residual[method] = params, jnp.linalg.norm(grad) + margin
            converged &= fine
        return Draws(trained.params, unlearned, retrained.params, residual, converged)

    draws = map_in_batches(one, noises, batch_size=batch_size)
    return draws._replace(converged=jnp.all(draws.converged))
