"""The guarantee of noisy fine-tuning by two accountants, rounded to the safe side, and the noise for a given mu.

All of it is float64 on the host, of public numbers alone. The theorems stand in ``fmu_jax.noisy_finetuning``.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.special

from fmu_jax.noisy_finetuning.schedule import Schedule
from fmu_jax.objective import Scalar
from fmu_jax.privacy import check_norm, check_not_negative, check_positive, check_probability, gaussian_epsilon
from fmu_jax.showing import one_line

#: Roundings of one coordinate in a step besides those of the gradient, and of a number below.
_LOCAL, _FEW = 8, 64
#: A Gaussian vector is longer than sqrt(d) + this with probability exp(-8.5^2 / 2).
_FAR, _LONGER = 8.5, 2.1e-16
_UNIT = np.finfo(float).eps / 2
#: Epsilons at which the curve of the contraction route is compared with that of a mu, and halvings of a bracket.
_POINTS, _HALVINGS = 500, 40
#: Absolute error allowed for in a delta that is a difference of two probabilities.
_CLOSE = 1e-12


class Guarantee(NamedTuple):
    """``mu``-Gaussian DP but for an event of probability ``failure``: ``delta(eps) <= failure + delta_mu(eps)``.

    Attributes:
      mu: The parameter of Gaussian DP, the smaller one of both routes; what ``releases.compose`` takes.
      failure: Add those of a series.
      route: The route of ``mu``: "iteration" or "contraction".
      by_iteration, by_contraction: The mu of each; infinite where a route needs a clip that the schedule has not.
    """

    mu: float
    failure: float
    route: str
    by_iteration: float
    by_contraction: float

    __repr__ = one_line()

    def epsilon(self, delta: Scalar) -> float:
        """The epsilon at a ``delta`` > ``failure``, rounded up; ValueError otherwise."""
        check_probability(delta=delta)
        if not delta > self.failure:
            raise ValueError(f"`delta` must be above the guarantee's own failure {self.failure:.3g}, got {delta}")
        return float(gaussian_epsilon(np.float64(self.mu), 1.0, np.float64((delta - self.failure) * (1 - 1e-12))))


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
    if not (size >= 1 and int(size) == size):
        raise ValueError(f"`size` must be the number of parameters, at least 1; got {size}")
    unit = float(jnp.finfo(dtype).eps) / 2
    by_iteration, missed = _by_iteration(schedule, size, unit)
    by_contraction, cut = _by_contraction(schedule, size, unit)
    if by_contraction < by_iteration:
        return Guarantee(by_contraction, cut, "contraction", by_iteration, by_contraction)
    return Guarantee(by_iteration, missed, "iteration", by_iteration, by_contraction)


def _by_iteration(schedule: Schedule, size: int, unit: float) -> tuple[float, float]:
    """Mu, and the probability that a model was longer than its rounding was bounded for."""
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
    if math.isfinite(plan.model_clip):
        rounded += 2 * _rounded(size + 8, unit) * plan.model_clip  # The norm by which the model is clipped.
    drift, missed = 2 * moved + 2 * rounded, 4 * plan.steps * _LONGER
    mu = iteration_mu(
        2 * plan.start_clip * (1 + _FEW * unit), plan.noise, plan.steps, contraction=keep, drift=drift,
        diameter=2 * plan.model_clip * (1 + _FEW * unit),
    )  # fmt: skip
    return mu, missed


def _by_contraction(schedule: Schedule, size: int, unit: float) -> tuple[float, float]:
    del size
    return contraction_mu(2 * schedule.model_clip * (1 + _FEW * unit), schedule.noise, schedule.steps)


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
    if not (steps >= 1 and int(steps) == steps):
        raise ValueError(f"`steps` must be a whole number of at least 1, got {steps}")
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


def contraction_delta(diameter: Scalar, noise: Scalar, steps: int, epsilon: Any) -> np.ndarray:
    """``delta(epsilon)`` after ``steps`` noisy steps whose images have a diameter, whatever the starts; rounded up.

    ``delta_{t+1} = delta_t theta(log(1 + (e^epsilon - 1) / delta_t))`` from ``delta_0 = 1``, ``theta`` that of two
    Gaussians ``diameter / noise`` apart. Absolute accuracy 1e-12.

    Args:
      diameter: Diameter of the images of a step, > 0.
      noise: Standard deviation, > 0.
      steps: Number of steps, at least 1.
      epsilon: >= 0, of any shape.

    Returns:
      Of the shape of ``epsilon``.

    Source: Balle et al. (2019), Theorem 1; Koloskova et al. (2025), model clipping.

    >>> [round(float(contraction_delta(2.0, 1.0, steps, 0.0)), 4) for steps in (1, 2)]
    [0.6827, 0.4661]
    """
    check_positive(diameter=diameter, noise=noise)
    check_not_negative(epsilon=epsilon)
    shape, epsilon = np.shape(epsilon), np.atleast_1d(np.asarray(epsilon, float))
    mu, delta = float(diameter / noise) * (1 + 4 * _UNIT), np.ones_like(epsilon)
    with np.errstate(divide="ignore"):
        excess = np.where(epsilon > 0, epsilon + np.log(-np.expm1(-epsilon)), -np.inf)
    for _ in range(int(steps)):
        inner = np.logaddexp(0, excess - np.log(delta)) * (1 - _FEW * _UNIT)
        delta = np.minimum(np.maximum(delta * (_gaussian_delta(mu, inner) + _CLOSE), 1e-200), 1)
    return delta.reshape(shape)


def _gaussian_delta(mu: float, epsilon: np.ndarray) -> np.ndarray:
    """``delta(epsilon)`` of two Gaussians ``mu`` apart, to an absolute accuracy of ``_CLOSE``, by its two terms."""
    at, log_tail = mu / 2 - epsilon / mu, scipy.special.log_ndtr(-mu / 2 - epsilon / mu)
    return np.clip(scipy.special.ndtr(at) - np.exp(epsilon + log_tail), 0, 1)


def contraction_mu(diameter: Scalar, noise: Scalar, steps: int, *, failure: Scalar = 1e-9) -> tuple[float, float]:
    """The least mu whose Gaussian curve covers ``contraction_delta`` but for ``failure``, rounded up; and ``failure``.

    The curve is compared on a grid of epsilons, each cell by its worse ends; beyond the grid ``failure`` covers it.
    Infinite without a diameter, or where that curve is beyond the accuracy of the comparison (mu above 20).

    Args:
      diameter: As for ``contraction_delta``, as ``noise`` and ``steps``.
      noise: As there.
      steps: As there.
      failure: Probability that the curve may leave out, > 0.
    """
    nothing = math.inf, failure
    if math.isinf(diameter):
        return nothing
    high = 1.0
    while high < 1000 and contraction_delta(diameter, noise, steps, high) > failure:
        high *= 1.3
    if contraction_delta(diameter, noise, steps, high) > failure:
        return nothing
    grid = np.linspace(0, high, _POINTS)
    curve = contraction_delta(diameter, noise, steps, grid)[:-1]

    def covers(mu: float) -> bool:
        return bool(np.all(curve <= failure + (1 - failure) * (_gaussian_delta(mu, grid[1:]) - _CLOSE)))

    good, bad = 20.0, 1e-6
    if not covers(good):
        return nothing
    for _ in range(_HALVINGS):
        middle = (good + bad) / 2
        good, bad = (middle, bad) if covers(middle) else (good, middle)
    return good, failure


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
    unit = float(jnp.finfo(dtype).eps) / 2

    guess = 2 * min(schedule.start_clip, schedule.model_clip) / mu

    def of_route(route) -> float:
        """The least noise that one route keeps mu with, up to a millionth of it; infinite if none does."""

        def suffices(noise: float) -> bool:
            return route(dataclasses.replace(schedule, noise=noise), size, unit)[0] <= mu

        good = guess
        while not suffices(good):
            good *= 2
            if good > 1e12 * guess:
                return math.inf
        while suffices(good / 2):
            good /= 2
        bad = good / 2
        for _ in range(_HALVINGS // 2):
            middle = (good + bad) / 2
            good, bad = (middle, bad) if suffices(middle) else (good, middle)
        return good

    noise = min(of_route(_by_iteration), of_route(_by_contraction))
    if math.isinf(noise):
        raise ValueError(f"no noise keeps mu={mu} in {jnp.dtype(dtype)}: rounding alone exceeds it; use float64")
    return dataclasses.replace(schedule, noise=noise)
