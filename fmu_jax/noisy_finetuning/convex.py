r"""Langevin unlearning and rewind-to-delete for one linear model or binary head, whose convexity is known.

The remaining objective of the linear model has curvatures between ``m = n_w l2`` and a computable ``M``, so a step
contracts by ``c = max(|1 - eta M|, |1 - eta m|)`` (``contraction``). That replaces clipping:

- **Langevin unlearning** (Chien et al. 2024, arXiv 2401.10371, 2403.17105): noisy steps on what remains from a model
  at a certified distance ``Delta`` of the retrained one. By the iteration theorem of this package with ``a = c`` and
  ``s`` rounding alone, ``mu = c^T Delta / (sigma sqrt(1 + c^2 + .. + c^{2(T-1)}))``: exact where the paper's bounds
  have constants (Bok, Su & Altschuler 2024, section 4).
- **Rewind-to-delete** (Mu & Klabjan 2025, arXiv 2409.09778): go back ``K`` of the ``T`` training steps, and take them
  on what remains. With ``d_t`` the difference that the forgotten rows made to the gradient at the t-th model, which is
  computed and not bounded by a Lipschitz constant, ``e_t = c e_{t-1} + eta d_t`` over training and ``e_t = c e_{t-1}``
  over the ``K`` steps end at a bound of the distance to the model that ``T`` steps on what remains reach. It is the
  distance that ``releases.release`` hides. For networks no ``M`` is known, hence no such bound: this refuses them.
  ``rewind`` **is that bound, and no cheap method**: ``d_t`` is of every model of the path, which is taken anew from
  ``init`` with two gradients and bounds of their rounding in every step: for any ``K`` several times what retraining by
  ``T`` plain steps takes. The paper's method loads the stored ``T - K``-th model and takes ``K`` steps; what it saves,
  a bound of constants pays for.

Heads of several classes are refused: take one class after the other.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from fmu_jax import cells
from fmu_jax.arrays import as_numbers
from fmu_jax.contraction import contraction
from fmu_jax.data import Data, as_data, check_data, without
from fmu_jax.noisy_finetuning.accounting import iteration_mu
from fmu_jax.noisy_finetuning.schedule import check_counts, is_number
from fmu_jax.noisy_finetuning.steps import check_finite, rounded_up
from fmu_jax.objective import Objective, Scalar
from fmu_jax.privacy import check_norm, check_positive, gaussian_epsilon
from fmu_jax.releases.publishing import Release, distance_to_retrained, on_grid, with_noise
from fmu_jax.removal.methods import check_forget, remove
from fmu_jax.rounding import gradient_with_error
from fmu_jax.showing import one_line
from fmu_jax.tracing import as_arrays


class Rewound(NamedTuple):
    """A rewound model.

    Attributes:
      params: After the steps on what remains.
      distance: Bound on its distance to the model that all steps on what remains reach; its rounding is included.
      data, forgotten: As for ``Removal``.
      contraction: Rate of a step, below 1.
    """

    params: Float[Array, " d"]
    distance: Float[Array, ""]
    data: Data
    forgotten: Bool[Array, " n"]
    contraction: Float[Array, ""]

    __repr__ = one_line()


@jax.default_matmul_precision("highest")
def rewind(
    objective: Objective, init: Array, data: Data, forget: Any, *, steps: int, rewound: int, step_size: Scalar
) -> Rewound:
    """Trains by ``steps`` gradient steps of which the last ``rewound`` leave out the rows to forget.

    It starts from ``init`` and reads all rows twice in every step, so it takes several times as long as retraining,
    whatever ``rewound`` is: it says how far the model that rewinding reaches is from the retrained one, and saves
    nothing.

    Args:
      objective: Objective for the linear model.
      init: Where training started, ``(d,)``; no row had a part in it.
      data: Rows on which it was trained.
      forget: Rows to remove.
      steps: Number of steps of training.
      rewound: How many are taken back, and taken again on what remains; 0 to ``steps``.
      step_size: Step size of the mean objective, > 0.

    Returns:
      The ``Rewound``; publish it by ``releases.release(found.params, found.distance, ...)``.

    Raises:
      ValueError: A model that is not linear or has several classes, a number out of range, or a step size at which
        steps do not contract.

    >>> from fmu_jax import datasets
    >>> data = datasets.synthetic(500, 3, seed=0).train
    >>> options = {"steps": 60, "step_size": 1.0}
    >>> init = jnp.zeros(data.x.shape[1], data.x.dtype)
    >>> half = rewind(Objective(l2=0.05), init, data, [3, 14], rewound=30, **options)
    >>> whole = rewind(Objective(l2=0.05), init, data, [3, 14], rewound=60, **options)
    >>> bool(whole.distance < half.distance < 0.02)
    True
    """
    _check_linear(objective)
    check_positive(step_size=step_size)
    check_counts(steps=steps)
    if not (is_number(rewound) and 0 <= rewound <= steps and int(rewound) == rewound):
        raise ValueError(f"`rewound` must be a whole number between 0 and `steps` {steps}, got {rewound}")
    data = as_data(data)
    init = _one_model(init, data, "init")
    mask = check_forget(data, forget)
    remaining = without(data, mask)
    check_data(remaining, what="what remains after the removal")
    params, distance, rate = _rewind(
        objective, init, data, remaining, jnp.asarray(step_size, data.x.dtype), int(steps - rewound), int(rewound)
    )
    _check_rate(rate)
    return Rewound(params, distance, remaining, mask, rate)


@partial(jax.jit, static_argnames=("before", "after"))
def _rewind(objective, init, data, remaining, step_size, before, after):
    unit = float(jnp.finfo(init.dtype).eps)
    rate = contraction(objective, remaining, step_size / cells.size(remaining))[2]

    def mean(rows, params):
        grad, error = gradient_with_error(objective, params, rows, None)
        return grad / cells.size(rows), error / cells.size(rows) + unit * jnp.linalg.norm(grad) / cells.size(rows)

    def step(carry, forgetting):
        params, off = carry
        (all_rows, all_error), (left, left_error) = mean(data, params), mean(remaining, params)
        grad = jnp.where(forgetting, left, all_rows)
        apart = jnp.where(forgetting, 0, jnp.linalg.norm(all_rows - left))
        rounded = step_size * (all_error + left_error) + 4 * unit * (jnp.linalg.norm(params) + off)
        off = (rate * off + step_size * apart * (1 + 64 * unit) + rounded) * (1 + 8 * unit)
        return (params - step_size * grad, off), None

    forgetting = jnp.arange(before + after, dtype=jnp.int32) >= before
    (params, off), _ = jax.lax.scan(step, (init, jnp.zeros((), init.dtype)), forgetting)
    return params, off, rate


def langevin(
    objective: Objective,
    params: Array,
    data: Data,
    forget: Any,
    *,
    admitted: Scalar,
    key: Array,
    noise: Scalar,
    steps: int,
    step_size: Scalar,
    rounding: Scalar = 1e-7,
    delta: Scalar = 1e-5,
) -> Release:
    """One fair Newton step, then noisy gradient steps on what remains, published at the end, of a linear model.

    To begin at what another method unlearned, pass its parameters and what remains, and forget nothing.

    Args:
      objective: Objective for the linear model.
      params: The trained parameters, ``(d,)``.
      data: Rows on which they were trained.
      forget: Rows to remove.
      admitted: Largest distance to the retrained model from which the noisy steps may begin, fixed beforehand, as for
        ``releases.release``.
      key: PRNG key, required; secret, never used twice.
      noise: Standard deviation of each step, > 0.
      steps: Number of steps, at least 1.
      step_size: Step size of the mean objective, > 0.
      rounding: Admitted rounding of a step, > 0; checked at every model visited, and assumed of those between the
        two worlds' that the proof passes through.
      delta: Failure probability of ``epsilon``.

    Returns:
      The ``Release``; its scale is that of all the noise that is left at the end.

    Raises:
      ValueError: A model that is not linear or has several classes, a number out of range, a step that is not
        certified within ``admitted``, steps that do not contract, more rounding than admitted, or noise too small for
        the dtype.
    """
    _check_linear(objective)
    check_positive(noise=noise, step_size=step_size, rounding=rounding)
    check_counts(steps=steps)
    check_norm(admitted=admitted)
    params = _one_model(params, as_data(data), "params")
    removal = remove(objective, params, data, forget)
    params, data = removal.params, removal.data
    apart = float(distance_to_retrained(objective, removal))
    if not apart <= float(admitted):
        raise ValueError(
            f"the removal is certified within {apart:.3g} of the retrained model, not within `admitted` "
            f"{float(admitted):.3g}; plan with a larger one, or retrain"
        )
    rate = contraction(objective, data, jnp.asarray(step_size, params.dtype) / cells.size(data))[2]
    _check_rate(rate)
    rate = float(rate)
    numbers = tuple(jnp.asarray(number, params.dtype) for number in (noise, step_size))
    noise = float(numbers[0])  # As it is drawn.
    mu = iteration_mu(float(admitted), noise, steps, contraction=rate, drift=2 * float(rounding))
    published, spacing, worst, fine = _noisy(objective, params, data, key, *numbers, steps)
    if not float(worst) <= float(rounding):
        raise ValueError(f"steps round by up to {float(worst):.2g}, more than `rounding` {rounding:.2g}; use float64")
    if not bool(fine):
        raise ValueError(f"noise {noise:.3g} is too small beside the parameters for {params.dtype}; use float64")
    left = noise * float(np.sqrt(np.sum(rate ** (2 * np.arange(steps)))))
    mu = rounded_up(mu, params.dtype)
    epsilon = gaussian_epsilon(mu, 1.0, delta)
    return Release(published, mu, epsilon, jnp.asarray(delta, mu.dtype), jnp.asarray(left, mu.dtype), spacing)


@partial(jax.jit, static_argnames="steps")
def _noisy(objective, params, data, key, noise, step_size, steps):
    unit = float(jnp.finfo(params.dtype).eps)

    def step(x, t):
        grad, error = gradient_with_error(objective, x, data, None)
        n = cells.size(data)
        moved = x - step_size * grad / n
        rounded = step_size * error / n + 4 * unit * (jnp.linalg.norm(x) + step_size * jnp.linalg.norm(grad) / n)
        x, spacing, fine = with_noise(moved, jax.random.fold_in(key, t), noise, None)
        return x, (spacing, rounded, fine)

    x, (spacing, rounded, fine) = jax.lax.scan(step, params, jnp.arange(steps, dtype=jnp.int32))
    return on_grid(x, spacing[-1]), spacing[-1], jnp.max(rounded), jnp.all(fine)


def _check_linear(objective: Objective) -> None:
    if not objective.linear:
        raise ValueError("a network's curvature has no bound here; use noisy_finetuning.finetune, or a linear head")


def _one_model(params: Any, data: Data, name: str) -> Float[Array, " d"]:
    """The parameters of one linear model of these rows."""
    params, d = as_arrays(as_numbers(params, name)), data.x.shape[-1]
    if params.shape != (d,) or data.y.ndim != 1:
        raise ValueError(
            f"the bound is of one linear model, ({d},), with one label a row; got parameters {params.shape} and labels "
            f"{data.y.shape}; take the classes of a head one by one, each with its row of labels (their distances add "
            "as squares, `releases.compose` adds their mus)"
        )
    if params.dtype != data.x.dtype:
        raise ValueError(f"`{name}` must have the dtype of the features, {data.x.dtype}; got {params.dtype}")
    check_finite(params, name)
    return params


def _check_rate(rate) -> None:
    if not float(rate) < 1:
        fix = "lower" if float(rate) > 1 else "too large, or too small for the dtype: change"
        raise ValueError(f"a step of this size does not contract (rate {float(rate):.4g}); {fix} `step_size`")
