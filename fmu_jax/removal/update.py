"""What every removal method returns inside, before ``remove`` wraps it."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class Update(NamedTuple):
    """New parameters and how they were reached; a pytree, so that methods can be jitted and vmapped.

    Attributes:
      params: the parameters after removal.
      start: the point from which the last step was taken (what a Newton step's certificate needs).
      converged: the solver inside reached its tolerance.
      residual: relative residual of the linear solve, or the mean-form gradient norm of a refit; 0 if neither.
      steps: iterations of the solver inside, int32.
    """

    params: Any
    start: Any
    converged: Bool[Array, ""]
    residual: Float[Array, ""]
    steps: Int[Array, ""]


def exact_update(params, start, dtype) -> Update:
    """An update that solves nothing iteratively."""
    return Update(params, start, jnp.ones((), bool), jnp.zeros((), dtype), jnp.zeros((), jnp.int32))
