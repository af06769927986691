"""The public numbers of noisy fine-tuning, checked."""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from fmu_jax.objective import Scalar
from fmu_jax.privacy import check_not_negative, check_positive
from fmu_jax.showing import one_line

#: The accounting has some numbers for each step.
MOST_STEPS = 10_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """The public numbers of noisy fine-tuning, fixed before any request.

    One step is ``x <- clip(x - step_size (clip(g, gradient_clip) + decay x), model_clip) + N(0, noise^2 I)``, from
    ``x_0 = clip(x_hat, start_clip)``; all norms are Euclidean, of all parameters together, measured from the center.

    Attributes:
      start_clip: Radius ``C_0`` that the trained model is clipped to, > 0.
      noise: Standard deviation of the noise of each step, > 0.
      steps: Number of noisy steps, from 1 to ten million.
      step_size: >= 0; zero only adds noise, which is output perturbation.
      gradient_clip: Radius ``C_1`` that each gradient is clipped to, > 0; infinite for none.
      decay: Pull towards the center for each unit of step size, >= 0, with ``step_size decay <= 1``.
      model_clip: Radius ``C_2`` that the model is clipped to before each noise, > 0; infinite for none.
      batch: Rows drawn for a gradient, with replacement; None reads all that remain.

    Raises:
      ValueError: A number out of range, or neither clip where steps follow a gradient: nothing would be certified.

    >>> Schedule(start_clip=0.5, noise=1.0, steps=1).step_size
    0.0
    """

    start_clip: Scalar
    noise: Scalar
    steps: int = 1
    step_size: Scalar = 0.0
    gradient_clip: Scalar = math.inf
    decay: Scalar = 0.0
    model_clip: Scalar = math.inf
    batch: int | None = None

    __repr__ = one_line()

    def __post_init__(self):
        for name in ("start_clip", "noise", "step_size", "gradient_clip", "decay", "model_clip"):
            if not is_number(getattr(self, name)):
                raise ValueError(f"`{name}` must be one real number, got {getattr(self, name)!r}")
        check_positive(start_clip=self.start_clip, noise=self.noise)
        check_not_negative(step_size=self.step_size, decay=self.decay)
        for name in ("gradient_clip", "model_clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be positive, or infinite for none; got {getattr(self, name)}")
        check_counts(steps=self.steps, batch=1 if self.batch is None else self.batch)
        if self.steps > MOST_STEPS:
            raise ValueError(f"`steps` must be at most {MOST_STEPS}, got {self.steps}")
        if not self.step_size * self.decay <= 1:
            raise ValueError(f"`step_size` times `decay` must be at most 1, got {self.step_size} times {self.decay}")
        if self.step_size > 0 and math.isinf(self.gradient_clip) and math.isinf(self.model_clip):
            raise ValueError("give `gradient_clip` or `model_clip`: steps of no bound hide nothing")


def is_number(number: Any) -> bool:
    """Whether it is one real number, of any sign or size; True is none."""
    kind = getattr(number, "dtype", np.asarray(number).dtype)
    return np.ndim(number) == 0 and (jnp.issubdtype(kind, jnp.integer) or jnp.issubdtype(kind, jnp.floating))


def check_counts(**numbers: Any) -> None:
    """Raises ValueError unless each is a whole number of at least 1; True is none."""
    for name, number in numbers.items():
        if not (is_number(number) and 1 <= number < math.inf and int(number) == number):
            raise ValueError(f"`{name}` must be a whole number of at least 1, got {number}")
