"""``remove``: one signature for every removal method."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from fmu_jax.data import Data, as_data, check_data, forget_mask, without
from fmu_jax.fitting import NotConvergedError, check_params, fit
from fmu_jax.objective import Objective, Params, Scalar, intervention, predict_labels
from fmu_jax.removal.descent import descent
from fmu_jax.removal.first_order import finetune, gradient_ascent, scrub
from fmu_jax.removal.hessian_free import hessian_free
from fmu_jax.removal.newton import fair_newton, influence, newton
from fmu_jax.removal.projective import projective
from fmu_jax.removal.sharded import check_shards, predict_shards, sharded
from fmu_jax.removal.trust_region import trust_region
from fmu_jax.removal.update import Update
from fmu_jax.showing import one_line
from fmu_jax.subsets import restrict, select
from fmu_jax.tracing import is_traced, when_concrete


class Removal(NamedTuple):
    """Result of ``remove``.

    Attributes:
      params: The parameters after removal.
      data: What remains: the same arrays, forgotten rows at weight zero.
      forgotten: ``(n,)`` bool, the rows removed by this call.
      start: The point from which the last step was taken; ``certify`` reads it.
      converged: The solver inside reached its tolerance.
      residual: Relative residual of the linear solve, or mean-form gradient norm of a refit; 0 where neither applies.
      steps: Iterations of the solver inside.
      damping: What a Newton-type step added to the mean-form Hessian: the ``damping`` asked for, or the one chosen.
      curvature: Least curvature of the damped mean-form Hessian that conjugate gradients met, infinite where none ran.
    """

    params: Any
    data: Data
    forgotten: Bool[Array, " n"]
    start: Any
    converged: Bool[Array, ""]
    residual: Float[Array, ""]
    steps: Int[Array, ""]
    damping: Any = 0.0
    curvature: Any = math.inf

    __repr__ = one_line()


def _check_params(objective: Objective, params: Params, data: Data, noise: Params | None, options: dict) -> None:
    del options
    check_params(objective, params, data, noise)


def _check_ensemble(objective: Objective, params: Params, data: Data, noise: Params | None, options: dict) -> None:
    del noise  # Refused by the method itself.
    check_shards(objective, data, options["shard"], params)


class Method(NamedTuple):
    """A removal method.

    Attributes:
      run: ``(objective, params, data, remaining, *, noise, **options) -> Update``.
      fair: Whether it honours a fairness intervention.
      linear_only: Whether it needs the linear model.
      needs: Options that must be given, and what each is.
      check: ``(objective, params, data, noise, options)``; raises ValueError for parameters that cannot be its own.
      predict: ``(objective, params, x)``; the labels that its parameters predict.
      ensemble: Whether its parameters are those of a model for each shard, ``(shards, d)``, whose mean log-odds are its
        answer where one number is asked for. They are those of ``fit_shards``, trained without the perturbation.
    """

    run: Callable[..., Update]
    fair: bool
    linear_only: bool = False
    needs: Mapping[str, str] = {}
    check: Callable[..., None] = _check_params
    predict: Callable[..., Array] = predict_labels
    ensemble: bool = False


def retrain(
    objective: Objective,
    params: Params,
    data: Data,
    remaining: Data,
    *,
    noise: Params | None = None,
    init: Params | None = None,
    tolerance: Scalar | None = None,
    max_steps: Scalar | None = None,
) -> Update:
    """Minimises the objective of what remains, from ``init`` (zero for the linear model): the oracle.

    ``params`` is not read: retraining must not start from a model that saw the forgotten rows. Other arguments as
    for ``fit``.
    """
    del data
    result = fit(objective, remaining, noise=noise, init=init, tolerance=tolerance, max_steps=max_steps, throw=False)
    return Update(result.params, params, result.converged, result.grad_norm, result.steps)


#: Every removal method by name. Options beyond the common signature are those of each function.
METHODS: dict[str, Method] = {
    "retrain": Method(retrain, fair=True),
    "fair_newton": Method(fair_newton, fair=True),
    "influence": Method(influence, fair=True),
    "descent": Method(descent, fair=True),
    "newton": Method(newton, fair=False),
    "projective": Method(projective, fair=False, linear_only=True),
    "sharded": Method(
        sharded,
        fair=False,
        linear_only=True,
        needs={"shard": "the assignment that fit_shards was given"},
        check=_check_ensemble,
        predict=lambda objective, params, x: predict_shards(params, x),
        ensemble=True,
    ),
}
ENSEMBLES = frozenset(name for name, method in METHODS.items() if method.ensemble)
"""The methods that leave a model for each shard."""
#: ``remove`` takes them too, experiments name them themselves: baselines of deep unlearning that nothing certifies, and
#: theory rows of the linear model that run on any (``certify`` applies to the linear model whatever the method was).
BASELINES: dict[str, Method] = {
    "finetune": Method(finetune, fair=True),
    "gradient_ascent": Method(gradient_ascent, fair=True),
    "scrub": Method(scrub, fair=True),
    "trust_region": Method(trust_region, fair=True),
    "hessian_free": Method(hessian_free, fair=False, needs={"vectors": "what recollect kept from training"}),
}


@jax.default_matmul_precision("highest")
def remove(
    objective: Objective,
    params: Params,
    data: Data,
    forget,
    *,
    method: str = "fair_newton",
    noise: Params | None = None,
    only: str | Sequence[str] | None = None,
    allow_unfair: bool = False,
    throw: bool = True,
    **options,
) -> Removal:
    """Removes rows from a trained model.

    Args:
      objective: Objective on which ``params`` was trained.
      params: The trained parameters (for ``sharded``, the ``(shards, d)`` parameters of ``fit_shards``).
      data: Rows on which it was trained.
      forget: Rows to remove: indices ``(k,)``, or a boolean mask ``(n,)``. An empty list is allowed.
      method: A key of ``METHODS``, or of ``BASELINES``.
      noise: Perturbation ``b`` with which ``params`` was trained.
      only: Names of the parameters to change, such as ``"Dense_1"`` for a flax model's last layer (see ``subsets``);
        the rest stays as it is, with whatever it remembers. None is all of them.
      allow_unfair: Let a method that cannot honour the objective's fairness intervention run all the same.
      throw: Whether to raise when the solver inside did not converge (not possible under ``jit``).
      **options: What the method's own function takes: ``steps``, ``solver``, ``damping``, ``gauss_newton``, ... for
        ``fair_newton``; ``init`` for ``retrain``, required for a model that is not linear; ``shard`` for
        ``sharded``; ``steps``, ``step_size``, ``publish_sigma``, ``key`` for ``descent``; ``steps``,
        ``learning_rate`` for the baselines.

    Returns:
      A ``Removal``. Under ``jit`` and ``vmap`` values are not checked, and ``converged`` says what happened.

    Raises:
      ValueError: Unknown method or option; a penalty or reweighing that the method cannot honour; rows out of range,
        repeated, or removed before; nothing would remain, or a group or a label would be left empty.
      NotConvergedError: The solver inside stopped early.

    >>> from fmu_jax import datasets, fit
    >>> data = datasets.synthetic(500, 3, seed=0).train
    >>> objective = Objective(l2=1e-3, fairness=1.0)
    >>> removal = remove(objective, fit(objective, data).params, data, [3, 14, 15])
    >>> int(removal.forgotten.sum())
    3
    """
    chosen = _choose(objective, method, allow_unfair, options)
    data = as_data(data)
    mask = check_forget(data, forget)
    chosen.check(objective, params, data, noise, options)
    remaining = without(data, mask)
    check_data(remaining, what="what remains after the removal")
    if only is None:
        update = chosen.run(objective, params, data, remaining, noise=noise, **options)
    else:
        update = _run_on_part(chosen, objective, params, data, remaining, noise, only, options)
    if throw and not is_traced(update.converged) and not update.converged:
        raise NotConvergedError(_why(objective, method, update))
    params, start, *rest = update
    return Removal(params, remaining, mask, start, *rest)


def _run_on_part(chosen: Method, objective, params, data, remaining, noise, only, options) -> Update:
    """The method on the parameters that ``only`` names, the rest bound as they are."""
    part = restrict(objective, params, only)
    noise = None if noise is None else select(noise, only)[0]
    if options.get("init") is not None:
        options = options | {"init": select(options["init"], only)[0]}
    update = chosen.run(part.objective, part.params, data, remaining, noise=noise, **options)
    return update._replace(params=part.merge(update.params), start=part.merge(update.start))


def _why(objective: Objective, method: str, update: Update) -> str:
    """What to say of an update that did not converge."""
    what = f"stopped after {int(update.steps)} steps at residual {float(update.residual):.3g}"
    hint = "raise `max_steps` or `l2`, or use float64"
    if method != "retrain" and not objective.linear:
        hint = "raise `max_steps` or `damping`, or use gauss_newton=True"
    if not update.curvature > 0:
        what += (
            f" at curvature {float(update.curvature):.3g}: with damping={float(update.damping):.3g} the Hessian is not"
        )
        what += " positive definite, and a Newton step leads to no minimum"
        hint = "leave `damping` to be chosen (None), raise it above minus that curvature, or use gauss_newton=True"
    return f"method {method!r} {what}; {hint}, or pass throw=False to take it as it is"


def _choose(objective: Objective, method: str, allow_unfair: bool, options: dict) -> Method:
    known_methods = METHODS | BASELINES
    if method not in known_methods:
        raise ValueError(f"unknown method {method!r}; known: {', '.join(known_methods)}")
    chosen = known_methods[method]
    known = [
        name
        for name in inspect.signature(chosen.run).parameters
        if name not in ("objective", "params", "data", "remaining", "noise")
    ]
    for name, value in options.items():
        if name == "steps" and is_traced(value):
            raise TypeError("`steps` is part of the program and cannot be traced; pass a whole number")
        if name in ("steps", "max_steps") and not (value is None or is_traced(value) or int(value) == value >= 1):
            raise ValueError(f"`{name}` must be a whole number of at least 1, got {value}")
        if name not in known:
            raise ValueError(f"method {method!r} takes no option {name!r}; it takes: {', '.join(known) or 'none'}")
    damping = options.get("damping")
    if damping is not None and not is_traced(damping) and (isinstance(damping, str) or not np.asarray(damping) >= 0):
        raise ValueError(f"`damping` must be >= 0, or None to have it chosen; got {damping!r}")
    for name, what in chosen.needs.items():
        if name not in options:
            raise ValueError(f"method {method!r} needs `{name}`, {what}")
    if chosen.linear_only and not objective.linear:
        raise ValueError(f"method {method!r} is defined for the linear model only; use fair_newton or influence")
    if not chosen.fair and not allow_unfair and (unseen := intervention(objective)):
        raise ValueError(
            f"method {method!r} cannot honour the {unseen} (fairness={objective.fairness}): it would unlearn "
            "another objective than the one trained; use fair_newton, or pass allow_unfair=True for a baseline"
        )
    return chosen


def check_forget(data: Data, forget) -> Bool[Array, " n"]:
    """The mask of ``forget``; raises ValueError for a row that is gone already, or when none would remain."""
    mask = forget_mask(forget, data.x.shape[0])
    _check_overlap(mask, data)
    return mask


@when_concrete
def _check_overlap(mask, data):
    gone, first, left = jax.device_get(_overlap(mask, data.weight))
    if gone:
        raise ValueError(f"row {first} was removed before; `forget` may only hold rows of weight one")
    if not left:
        raise ValueError(f"`forget` holds all {int(mask.sum())} remaining rows; at least one row must remain")


@jax.jit
def _overlap(mask, weight):
    """Whether a row to forget has no weight, the first such row, and whether any row remains."""
    gone = mask & ~(weight > 0)
    return jnp.any(gone), jnp.argmax(gone), jnp.any((weight > 0) & ~mask)
