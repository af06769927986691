"""The smallest objective noise that certifies the removal of given rows."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fmu_jax import distances, privacy
from fmu_jax.data import Data, as_data, check_data
from fmu_jax.fitting import fit
from fmu_jax.objective import Objective, Params, Scalar
from fmu_jax.removal import remove
from fmu_jax.removal.methods import check_forget
from fmu_jax.showing import one_line


class Calibration(NamedTuple):
    """Result of ``calibrate_noise``.

    Attributes:
      sigma: Standard deviation of the objective noise.
      params: The model after the removal, trained with that noise.
      distance: Bound on how far the exactly retrained parameters lie from it.
      epsilon: What is certified at that ``sigma``.
      converged: Whether ``epsilon`` is within the tolerance of the one that was asked for.
      steps: How often ``sigma`` was improved.
    """

    sigma: Float[Array, ""]
    params: Any
    distance: Float[Array, ""]
    epsilon: Float[Array, ""]
    converged: Bool[Array, ""]
    steps: Any

    __repr__ = one_line()


def calibrate_noise(
    objective: Objective,
    data: Data,
    forget: Any,
    direction: Params,
    *,
    epsilon: Scalar,
    delta: Scalar,
    init: Params | None = None,
    tolerance: float = 0.01,
    max_steps: int = 30,
) -> Calibration:
    r"""The noise level at which a fair Newton removal of these rows is certified at ``epsilon``.

    It solves a fixed-point equation: the residual after the step depends on the noise, and the noise that it requires
    is ``sigma = residual(sigma) / r``, with ``r`` the residual that ``(epsilon, delta)`` admits at ``sigma = 1``.

    The result shows how much noise a guarantee needs. It gives no guarantee by itself: an operator must fix ``sigma``
    before any request, since a noise level that is fitted to the forgotten rows reveals something about them.

    Args:
      objective: Objective of the training.
      data: The training rows.
      forget: Rows to remove, as for ``remove``.
      direction: A draw of ``sample_noise`` at ``sigma=1``; the noise is ``sigma`` times it.
      epsilon: Epsilon to certify, above 0.
      delta: Failure probability.
      init: Where training starts; by default zero.
      tolerance: Relative, of ``epsilon``.
      max_steps: How often ``sigma`` is improved at most.

    Returns:
      A ``Calibration``; where no level was found ``converged`` is False. A function that can be jitted and, over
      ``direction``, mapped; its loop has no derivative in reverse mode.

    Raises:
      ValueError: As ``remove``; an ``epsilon`` or ``delta`` out of range.

    >>> from fmu_jax import datasets, sample_noise
    >>> data, objective = datasets.synthetic(400, 3, seed=0).train, Objective(l2=1e-2, fairness=1.0)
    >>> direction = sample_noise(data.x[0], key=jax.random.key(0), sigma=1.0)
    >>> found = calibrate_noise(objective, data, [3, 14], direction, epsilon=1.0, delta=1e-5)
    >>> bool(found.converged), bool(abs(found.epsilon - 1) <= 0.01)
    (True, True)
    """
    data = as_data(data)
    check_data(data)
    privacy.check_positive(epsilon=epsilon)
    privacy.check_probability(delta=delta)
    return _calibrate(
        objective, data, check_forget(data, forget), direction, epsilon, delta, init, tolerance, max_steps
    )


@jax.jit
def _calibrate(objective, data, mask, direction, epsilon, delta, init, tolerance, max_steps) -> Calibration:
    shift = privacy.residual_from(epsilon, 1.0, delta)

    def attempt(sigma):
        noise = jax.tree.map(lambda leaf: sigma * leaf, direction)
        trained = fit(objective, data, noise=noise, init=init, throw=False).params
        removal = remove(objective, trained, data, mask, noise=noise, throw=False)
        region = distances.retrained_region(objective, removal, noise=noise)
        distance = jnp.minimum(region.distance, distances.local_distance(region))
        reached = privacy.certified_epsilon(region.residual_norm, sigma, delta)
        return removal.params, distance, region.residual_norm / shift, reached

    def is_off(reached):
        return jnp.abs(reached / epsilon - 1) > tolerance

    def is_going(state):
        *_, reached, steps = state
        return (steps < 0) | is_off(reached) & (steps < max_steps)

    def improve(state):
        *_, following, _, steps = state
        return following, *attempt(following), steps + 1

    # Without noise the residual is nearly that of little noise: a good first guess. Two rounds come before the first
    # improvement, that one and the guess's own, inside of the loop so that an attempt is compiled once.
    zero = jnp.zeros((), data.x.dtype)
    start = zero, jax.tree.map(lambda leaf: zero * leaf, direction), zero, zero, zero, jnp.asarray(-2)
    sigma, params, distance, _, reached, steps = jax.lax.while_loop(is_going, improve, start)
    return Calibration(sigma, params, distance, reached, ~is_off(reached), steps)


@jax.jit
def calibrate_draws(
    objective: Objective, data: Data, forget: Any, directions: Any, *, epsilon: Scalar, delta: Scalar, init: Any = None
) -> Calibration:
    """``calibrate_noise`` for each of many directions, one after the other in one program.

    Args:
      objective: As there, as ``data``, ``epsilon``, ``delta`` and ``init``.
      data: The rows.
      forget: Mask ``(n,)`` of the rows to remove.
      directions: ``(k, ...)``, directions of the noise, each like the parameters.
      epsilon: Epsilon to certify.
      delta: Failure probability of that epsilon.
      init: Where fits start.

    Returns:
      The ``Calibration`` with a leading axis ``k``.
    """
    options = {"epsilon": epsilon, "delta": delta, "init": init}
    return jax.lax.map(lambda direction: calibrate_noise(objective, data, forget, direction, **options), directions)
