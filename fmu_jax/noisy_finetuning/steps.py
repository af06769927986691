"""The noisy steps themselves: one compiled scan over a flat vector, for any pytree of parameters."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float

from fmu_jax import objective as objectives
from fmu_jax.arrays import as_floats, as_numbers
from fmu_jax.data import Data, as_data, check_data, rows_at, without
from fmu_jax.noisy_finetuning.accounting import guarantee
from fmu_jax.noisy_finetuning.schedule import Schedule
from fmu_jax.objective import Objective, Params, Scalar
from fmu_jax.privacy import check_probability
from fmu_jax.releases.publishing import on_grid, with_noise
from fmu_jax.removal.methods import check_forget
from fmu_jax.rounding import norm_bound
from fmu_jax.showing import one_line
from fmu_jax.tracing import as_arrays, when_concrete


class Finetuned(NamedTuple):
    """A model that may be published, and its guarantee.

    Attributes:
      params: The model; NaN where a trace could not raise what is refused.
      data: What remains.
      forgotten: ``(n,)`` bool, the rows that this call forgot.
      mu, failure: ``noisy_finetuning.guarantee`` of the schedule; infinite and 1 where ``params`` are NaN.
      epsilon, delta: Epsilon and delta of this model alone, by ``Guarantee.epsilon``; where the model is clipped, less
        than ``mu`` says.
    """

    params: Any
    data: Data
    forgotten: Bool[Array, " n"]
    mu: Float[Array, ""]
    failure: Float[Array, ""]
    epsilon: Float[Array, ""]
    delta: Float[Array, ""]

    __repr__ = one_line()


@jax.default_matmul_precision("highest")
def finetune(
    objective: Objective | Callable[[Any, Data, Array], Array],
    params: Any,
    data: Data,
    forget: Any,
    *,
    schedule: Schedule,
    key: Array,
    center: Any = None,
    delta: Scalar = 1e-5,
) -> Finetuned:
    """Forgets rows from any model by noisy fine-tuning on what remains.

    Args:
      objective: Whose mean form the steps descend, fair or not; or any ``loss(params, rows, weight) -> scalar`` of
        rows of weight one (those of weight zero must play no part), for models that are no ``Objective``; ``rows`` is
        a ``Data``.
      params: The trained model, a pytree of arrays of one floating type: a flax linen model's variables, the state of
        an nnx model (``nnx.split``). It may be a model that was published before.
      data: Rows on which it was trained. For a loss of your own, ``Data(x, y, group, weight)`` of numbers of any kind,
        such as classes, real labels or one row of labels each; what your loss does not read may be zeros.
      forget: Rows to remove, indices or a mask, as for ``remove``.
      schedule: Fixed beforehand; ``noise_for`` finds its noise.
      key: PRNG key, required; secret, and never used twice.
      center: A pytree like ``params`` that no forgotten row had a part in, such as the initialisation or a model of
        public rows; None is zero.
      delta: Failure probability of ``epsilon``, in (0, 1).

    Returns:
      The ``Finetuned``. It may be mapped or jitted over everything but the schedule.

    Raises:
      ValueError: Parameters or a center of another structure, type or shape, or not finite; rows as for ``remove``;
        a schedule whose guarantee is infinite, or whose noise is too small for the dtype; a ``delta`` of which the
        guarantee says nothing.

    Source: Koloskova et al. (2025), "Certified unlearning for neural networks".

    >>> from fmu_jax import datasets
    >>> from fmu_jax.noisy_finetuning import noise_for
    >>> data = datasets.synthetic(200, 3, seed=0).train
    >>> objective = Objective(l2=1e-3, fairness=1.0, predict=lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"])
    >>> trained = {"w": jnp.ones((data.x.shape[1], 2), data.x.dtype), "v": jnp.ones(2, data.x.dtype)}
    >>> plan = Schedule(start_clip=1.0, noise=1.0, steps=10, step_size=0.1, gradient_clip=1.0)
    >>> plan = noise_for(plan, mu=1.0, size=10, dtype=data.x.dtype)
    >>> model = finetune(objective, trained, data, [3, 14], schedule=plan, key=jax.random.key(0))
    >>> round(float(model.mu), 6), float(model.data.weight.sum()) == float(data.weight.sum()) - 2
    (1.0, True)
    """
    check_probability(delta=delta)
    flat, middle, unravel = _flatten(params, center)
    fair = isinstance(objective, Objective)
    data = as_data(data) if fair else _as_rows(data)
    mask = check_forget(data, forget)
    remaining = without(data, mask)
    if fair:
        check_data(remaining, what="what remains after the removal")
    promise = guarantee(schedule, size=flat.size, dtype=flat.dtype)
    if not np.isfinite(promise.mu):
        raise ValueError(
            f"{schedule} guarantees nothing in {flat.dtype}: raise `noise`, use float64, or "
            "take `step_size` and `decay` nearer to 1"
        )
    epsilon = promise.epsilon(delta)
    loss = Partial(_mean_value, objective) if fair else Partial(objective)
    numbers = (schedule.start_clip, schedule.noise, schedule.step_size)
    numbers += (schedule.gradient_clip, schedule.decay, schedule.model_clip)
    numbers = tuple(jnp.asarray(number, flat.dtype) for number in numbers)
    rows = remaining
    if fair:  # The objective's steps are computed in the model's own precision, whatever that of the rows.
        rows = rows._replace(x=rows.x.astype(flat.dtype), weight=rows.weight.astype(flat.dtype))
    moved, fine = _run(
        loss, flat, middle, rows, key, numbers, unravel=unravel, steps=int(schedule.steps),
        batch=None if schedule.batch is None else int(schedule.batch), moves=schedule.step_size > 0,
    )  # fmt: skip
    _check_fine(fine, schedule)
    return Finetuned(
        params=unravel(jnp.where(fine, moved + middle, jnp.nan)),
        data=remaining,
        forgotten=mask,
        mu=jnp.where(fine, rounded_up(promise.mu, flat.dtype), jnp.inf),
        failure=jnp.where(fine, rounded_up(promise.failure, flat.dtype), 1),
        epsilon=jnp.where(fine, rounded_up(epsilon, flat.dtype), jnp.inf),
        delta=jnp.asarray(delta, flat.dtype),
    )


def rounded_up(number: float, dtype: Any) -> Array:
    """The least number of a dtype that is no less."""
    rounded = np.asarray(number, dtype)
    return jnp.asarray(np.nextafter(rounded, np.asarray(np.inf, dtype)) if float(rounded) < number else rounded)


def rounded_down(number: float, dtype: Any) -> float:
    """The largest number of a dtype that is no more."""
    return -float(rounded_up(-float(number), dtype))


def _as_rows(data: Data) -> Data:
    """Rows for a loss of the user's own, of which only the features' and labels' numbers are known."""
    if not isinstance(data, Data):
        raise ValueError(f"`data` must be a fmu_jax.Data, of any numbers; got {type(data).__name__}")
    read = {name: as_arrays(as_numbers(getattr(data, name), name)) for name in ("x", "y", "group")}
    rows = data._replace(**read, weight=as_floats(data.weight, "weight"))
    n = len(rows.x) if rows.x.ndim else 0
    for name in ("y", "group", "weight"):
        shape = getattr(rows, name).shape
        if shape[:1] != (n,) or (name == "weight" and len(shape) > 1):
            raise ValueError(f"`{name}` must have one entry for each of the {n} rows of `x`; got shape {shape}")
    _check_rows(rows)
    return rows


@when_concrete
def _check_rows(rows):
    for name in ("x", "y", "group"):
        values = getattr(rows, name)
        if jnp.issubdtype(values.dtype, jnp.floating) and not bool(jnp.all(jnp.isfinite(values))):
            raise ValueError(
                f"`{name}` holds numbers that are not finite; impute or drop them (removed rows count too)"
            )
    if not bool(jnp.all((rows.weight == 0) | (rows.weight == 1))):
        raise ValueError("`weight` must hold zeros and ones: a row is kept (1) or removed (0)")


def dtype_of(params: Any) -> np.dtype:
    """The one floating type of all parameters; ValueError where there is none or are several."""
    kinds = {jnp.asarray(leaf).dtype for leaf in jax.tree.leaves(params)}
    if len(kinds) != 1 or not jnp.issubdtype(next(iter(kinds)), jnp.floating):
        found = ", ".join(sorted(map(str, kinds))) or "none"
        raise ValueError(
            f"`params` must hold arrays of one floating type, got {found}; keep counters and keys elsewhere"
        )
    return next(iter(kinds))


def _flatten(params: Any, center: Any) -> tuple[Array, Array, Any]:
    """Trained parameters relative to the center, the center, and the way back."""
    dtype_of(params)
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(params)]
    flat, unravel = ravel_pytree(params)
    if center is None:
        middle = jnp.zeros_like(flat)
    else:
        like = [(jnp.shape(leaf), jnp.asarray(leaf).dtype) for leaf in jax.tree.leaves(center)]
        if jax.tree.structure(center) != jax.tree.structure(params) or like != [(x.shape, x.dtype) for x in leaves]:
            raise ValueError("`center` must be a pytree of the same structure, shapes and type as `params`")
        middle = ravel_pytree(center)[0]
    check_finite(flat, "params")
    check_finite(middle, "center")
    return flat - middle, middle, unravel


@when_concrete
def check_finite(flat, name):
    """Raises ValueError for an array that holds a number that is not finite; tracers pass."""
    if not bool(jnp.all(jnp.isfinite(flat))):
        raise ValueError(f"`{name}` holds a number that is not finite")


@when_concrete
def _check_fine(fine, schedule):
    if not bool(fine):
        raise ValueError(
            f"noise {schedule.noise:.3g} is too small beside the parameters for their dtype; raise `noise`, lower "
            "`start_clip`, or use float64"
        )


def _mean_value(objective: Objective, params: Params, rows: Data, weight: Array) -> Array:
    rows = rows._replace(weight=weight)
    return objectives.value(objective, params, rows) / jnp.maximum(weight.sum(), 1)


@partial(jax.jit, static_argnames=("unravel", "steps", "batch", "moves"))
def _run(loss, flat, middle, remaining, key, numbers, *, unravel, steps, batch, moves) -> tuple[Array, Array]:
    """The model after all steps, relative to the center, and whether its dtype held the noise throughout."""
    start_clip, noise, step_size, gradient_clip, decay, model_clip = numbers
    gradient = jax.grad(lambda x, rows, weight: loss(unravel(x + middle), rows, weight).astype(flat.dtype))
    left = remaining.weight > 0
    count = jnp.sum(left, dtype=jnp.int32)
    order = jnp.argsort(~left, stable=True)  # Ranks of remaining rows; forgotten ones come last and are not read.

    def rows_of(key):
        if batch is None:
            rank = jnp.arange(left.shape[0], dtype=jnp.int32)
            weight = (rank < count).astype(remaining.weight.dtype)
            rank = jnp.minimum(rank, count - 1)
        else:
            rank = jax.random.randint(key, (batch,), 0, count, dtype=jnp.int32)
            weight = jnp.ones(batch, remaining.weight.dtype)
        return rows_at(remaining, order[rank]), weight

    fixed = rows_of(None) if batch is None and moves else None

    def step(x, t):
        for_rows, for_noise = jax.random.split(jax.random.fold_in(key, t))
        if moves:
            rows, weight = fixed if fixed is not None else rows_of(for_rows)
            grad = clip(gradient(x, rows, weight), gradient_clip)
            x = x - step_size * (grad + decay * x)
        x = clip(x, model_clip)  # Also where nothing moves: the guarantee counts on it.
        x, spacing, fine = with_noise(x, for_noise, noise, None)
        return x, (spacing, fine)

    x, (spacing, fine) = jax.lax.scan(step, clip(flat, start_clip), jnp.arange(steps, dtype=jnp.int32))
    # Only what is published is rounded to the grid: a state between that is would be another map, see the package.
    # What a trace could not refuse: no row that remains, where steps would read forgotten ones, and broken models.
    sound = (count > 0) & jnp.all(jnp.isfinite(flat)) & jnp.all(jnp.isfinite(middle))
    return on_grid(x, spacing[-1]), jnp.all(fine) & sound


def clip(vector: Float[Array, " d"], radius: Float[Array, ""]) -> Float[Array, " d"]:
    """The vector, shortened to at most ``radius`` whatever rounding does; zero where it is not finite."""
    size = norm_bound(vector)
    shorter = vector * jnp.minimum(1, radius / jnp.where(size > 0, size, 1))
    return jnp.where(jnp.isfinite(size), shorter, 0)
