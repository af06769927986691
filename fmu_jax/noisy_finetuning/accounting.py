"""The guarantee of noisy fine-tuning by two accountants, rounded to the safe side, and the noise for a given mu.

All of it is float64 on the host, of public numbers alone. The theorems stand in ``fmu_jax.noisy_finetuning``.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from fmu_jax.noisy_finetuning.mixing import contraction_epsilon, contraction_mu
from fmu_jax.noisy_finetuning.schedule import Schedule, check_counts
from fmu_jax.objective import Scalar
from fmu_jax.privacy import check_norm, check_not_negative, check_positive, check_probability, gaussian_epsilon
from fmu_jax.showing import one_line

#: Roundings of one coordinate in a step besides those of the gradient, and of a number below.
_LOCAL, _FEW = 8, 64
#: A Gaussian vector is longer than sqrt(d) + this with probability exp(-8.5^2 / 2).
_FAR, _LONGER = 8.5, 2.1e-16
_UNIT = np.finfo(float).eps / 2
#: Halvings of a bracket of noises, and the largest noise that is looked at.
_HALVINGS, _MOST = 20, 1e200


class Guarantee(NamedTuple):
    """``mu``-Gaussian DP but for an event of probability ``failure``: ``delta(eps) <= failure + delta_mu(eps)``.

    The contraction route has a curve of its own, below that of its ``mu``: ``epsilon`` reads both. ``mu`` is what
    composes.

    Attributes:
      mu: The parameter of Gaussian DP, the smaller one of both routes; what ``releases.compose`` takes.
      failure: Add those of a series.
      route: The route of ``mu``: "iteration" or "contraction".
      by_iteration, by_contraction: The mu of each; infinite where a route needs a clip that the schedule has not.
      images: The arguments of ``contraction_delta``, diameter, noise and steps; None without a clip of the model.
    """

    mu: float
    failure: float
    route: str
    by_iteration: float
    by_contraction: float
    images: tuple[float, float, int] | None = None

    __repr__ = one_line()

    def epsilon(self, delta: Scalar) -> float:
        """The least epsilon that either theorem gives at ``delta``, rounded up.

        With a clip of the model that is ``contraction_delta`` itself where it says less than the Gaussian of ``mu``.

        Raises:
          ValueError: A ``delta`` that neither says anything of: one of at most ``failure`` without a clip of the model.
        """
        check_probability(delta=delta)
        exact = math.inf if self.images is None else contraction_epsilon(*self.images, delta)
        if delta > self.failure:
            left = np.float64((delta - self.failure) * (1 - 1e-12))
            return min(exact, float(gaussian_epsilon(np.float64(self.mu), 1.0, left)))
        if math.isinf(exact):
            raise ValueError(f"`delta` must be above the guarantee's own failure {self.failure:.3g}, got {delta}")
        return exact


def guarantee(schedule: Schedule, *, size: int, dtype: Any = jnp.float32) -> Guarantee:
    """What a schedule guarantees between any two starting models.

    Args:
      schedule: Fixed beforehand.
      size: Number of parameters.
      dtype: Dtype in which the steps are computed; its rounding is part of the bound.

    Returns:
      The ``Guarantee``; mu is infinite where rounding alone is more than the noise hides.

    Source: Koloskova et al. (2025), whose theorems have constants; here they are exact, up to rounding.

    >>> plan = Schedule(start_clip=0.5, noise=1.0, steps=4, step_size=0.1, gradient_clip=0.5)
    >>> round(guarantee(plan, size=10, dtype=float).mu, 6)  # (2 C_0 + 2 step_size C_1 steps) / (noise sqrt(steps))
    0.7
    """
    check_counts(size=size)
    by_iteration, missed = _by_iteration(schedule, size, dtype)
    by_contraction, cut = _by_contraction(schedule, size, dtype)
    images = None if math.isinf(schedule.model_clip) else _images(schedule, dtype)
    if by_contraction < by_iteration:
        return Guarantee(by_contraction, cut, "contraction", by_iteration, by_contraction, images)
    return Guarantee(by_iteration, missed, "iteration", by_iteration, by_contraction, images)


def _by_iteration(schedule: Schedule, size: int, dtype: Any) -> tuple[float, float]:
    """Mu, and the probability that a model was longer than its rounding was bounded for."""
    info = jnp.finfo(dtype)
    unit, tiny = float(info.eps) / 2, float(info.tiny)
    plan, keep = schedule, 1 - schedule.step_size * schedule.decay
    moved = 0.0 if plan.step_size == 0 else plan.step_size * plan.gradient_clip
    if math.isinf(moved):
        moved = 2 * plan.model_clip  # Of an unclipped gradient only the model's own clip is known.
    summed, squares = _powers(keep, plan.steps), _powers(keep**2, plan.steps)
    # The longest model, and the interpolated ones of the proof: start, gradients, and noise, which is Gaussian.
    length = plan.noise * (math.sqrt(size) + _FAR)
    longest = 3 * (plan.start_clip + moved * summed[-1]) + length * math.sqrt(squares[-1])
    if plan.model_clip < longest:
        longest = 3 * (plan.model_clip + moved) + length
    rounded = _rounded(_LOCAL, unit) * (longest + moved)
    rounded += _LOCAL * (1 + plan.step_size) * tiny * math.sqrt(size)  # What underflows.
    if math.isfinite(plan.model_clip):
        rounded += 2 * _rounded(size + 8, unit) * plan.model_clip  # The norm by which the model is clipped.
    drift, missed = 2 * moved + 2 * rounded, 4 * plan.steps * _LONGER
    # A number that is flushed to zero pulls no models together, and a step that overflows is a jump.
    flushed = any(0 < number < 2 * tiny for number in (plan.step_size, plan.decay))
    steepest = plan.gradient_clip if math.isfinite(plan.gradient_clip) else 0.0
    if flushed or (plan.step_size > 0 and steepest + (1 + plan.decay) * longest > float(info.max) / 4):
        return math.inf, missed
    mu = iteration_mu(
        2 * plan.start_clip * (1 + _FEW * unit), plan.noise, plan.steps, contraction=keep, drift=drift,
        diameter=2 * plan.model_clip * (1 + _FEW * unit),
    )  # fmt: skip
    return mu, missed


def _by_contraction(schedule: Schedule, size: int, dtype: Any) -> tuple[float, float]:
    del size
    return contraction_mu(*_images(schedule, dtype))


def _images(schedule: Schedule, dtype: Any) -> tuple[float, float, int]:
    """Diameter of the images of a step, noise and steps. Rounded noisy states only enter the next step's clip."""
    unit = float(jnp.finfo(dtype).eps) / 2
    diameter = 2 * float(schedule.model_clip) * (1 + _FEW * unit)
    return diameter, float(schedule.noise), int(schedule.steps)


def iteration_mu(
    distance: Scalar, noise: Scalar, steps: int, *, contraction: Scalar = 1.0, drift: Scalar = 0.0,
    diameter: Scalar = math.inf,
) -> float:  # fmt: skip
    """Gaussian-DP parameter of the last of ``steps`` noisy steps from two starts, rounded up.

    Steps are ``x <- phi_t(x) + N(0, noise^2 I)`` with ``|phi_t(x) - phi_t(y)| <= contraction |x - y| + drift``, and at
    most ``diameter``. It is ``min_k D_k / (noise sqrt(S_k))`` over the last ``k`` steps, see the package.

    Args:
      distance: Bound on the distance of the starts, >= 0.
      noise: Standard deviation, > 0.
      steps: Number of steps, at least 1.
      contraction: ``a``, in [0, 1].
      drift: ``s``, >= 0.
      diameter: Diameter of the images of all ``phi_t``; infinite where nothing is known.

    Raises:
      ValueError: A number out of range.

    >>> round(iteration_mu(1.0, 0.5, 1), 6), round(iteration_mu(1.0, 0.5, 4, contraction=0.5), 4)
    (2.0, 0.1085)
    """
    check_positive(noise=noise)
    check_not_negative(distance=distance)
    check_norm(drift=drift)
    if not 0 <= contraction <= 1:
        raise ValueError(f"`contraction` must lie in [0, 1], got {contraction}; the theorem is not about larger ones")
    check_counts(steps=steps)
    if not diameter > 0:
        raise ValueError(f"`diameter` must be positive, got {diameter}")
    summed, squares = _powers(contraction, steps), _powers(contraction**2, steps)
    whole = (contraction**steps * distance + drift * summed[-1]) / (noise * math.sqrt(squares[-1]))
    least = whole
    if math.isfinite(diameter):
        before = np.concatenate([[0.0], summed[:-1]])
        power = contraction ** np.arange(steps)
        least = min(least, float(np.min((power * diameter + drift * before) / (noise * np.sqrt(squares)))))
    return float(least * (1 + (steps + _FEW) * 2 * _UNIT))


def _rounded(m: int, unit: float) -> float:
    """What ``m`` roundings do, relative to the size of the terms; infinite where that is anything."""
    return m * unit / (1 - m * unit) if m * unit < 1 else math.inf


def _powers(ratio: float, steps: int) -> np.ndarray:
    """``1 + ratio + .. + ratio^(k - 1)`` for ``k = 1 .. steps``."""
    return np.cumsum(float(ratio) ** np.arange(int(steps)))


def noise_for(schedule: Schedule, *, mu: Scalar, size: int, dtype: Any = jnp.float32) -> Schedule:
    """The schedule with the least noise that keeps ``mu``, all else as it is; the noise that it has is not read.

    Args:
      schedule: Fixed beforehand.
      mu: Gaussian-DP parameter to keep, > 0.
      size: Number of parameters.
      dtype: Dtype in which the steps are computed.

    Raises:
      ValueError: ``mu`` out of range, or no noise keeps it in this dtype.

    >>> plan = noise_for(Schedule(start_clip=0.5, noise=1.0), mu=0.5, size=10, dtype=float)
    >>> round(plan.noise, 4)
    2.0
    """
    check_positive(mu=mu)
    guess = 2 * min(schedule.start_clip, schedule.model_clip) / mu

    def of_route(route) -> float:
        return least_noise(lambda noise: route(dataclasses.replace(schedule, noise=noise), size, dtype)[0] <= mu, guess)

    noise = min(of_route(_by_iteration), of_route(_by_contraction))
    if math.isinf(noise):
        raise no_noise(mu, dtype)
    return dataclasses.replace(schedule, noise=noise)


def no_noise(mu: Scalar, dtype: Any) -> ValueError:
    """The error where no noise keeps a mu."""
    fix = "raise `mu`" if jnp.dtype(dtype) == jnp.float64 else "raise `mu`, or use float64"
    return ValueError(f"no noise keeps `mu` {mu:.3g} in {jnp.dtype(dtype)}: rounding alone exceeds it; {fix}")


def least_noise(suffices: Callable[[float], bool], guess: float) -> float:
    """The least noise that suffices, up to a millionth of it, from a guess of its size; infinite if none does."""
    good = guess
    while good <= _MOST and not suffices(good):
        good *= 2
        if good > 1e12 * guess:
            return math.inf
    if not good <= _MOST:
        return math.inf
    while suffices(good / 2):
        good /= 2
    bad = good / 2
    for _ in range(_HALVINGS):
        middle = (good + bad) / 2
        good, bad = (middle, bad) if suffices(middle) else (good, middle)
    return good
