"""The internal result of every removal method, which ``remove`` wraps."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class Update(NamedTuple):
    """New parameters and how they were reached; a pytree, so that methods can be jitted and vmapped.

    Attributes:
      params: The parameters after removal.
      start: The point from which the last step was taken (what a Newton step's certificate needs).
      converged: The solver inside reached its tolerance.
      residual: Relative residual of the linear solve, or the mean-form gradient norm of a refit; 0 if neither.
      steps: Iterations of the solver inside, int32.
      damping: Added to the mean-form Hessian by a Newton-type step; 0 for other methods.
      curvature: Least curvature of the damped mean-form Hessian that conjugate gradients met, infinite where none ran;
        a step with one that is not positive has failed.
    """

    params: Any
    start: Any
    converged: Bool[Array, ""]
    residual: Float[Array, ""]
    steps: Int[Array, ""]
    damping: Any = 0.0
    curvature: Any = math.inf


def exact_update(params, start, dtype) -> Update:
    """An update that solves nothing iteratively."""
    return Update(params, start, jnp.ones((), bool), jnp.zeros((), dtype), jnp.zeros((), jnp.int32))
