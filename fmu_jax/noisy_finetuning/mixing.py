"""What noisy steps whose images lie in a ball keep of any difference that came in: privacy amplification by mixing.

The theorem stands in ``fmu_jax.noisy_finetuning``; everything is rounded to the safe side, in float64 on the host.
"""

import math
from typing import Any

import numpy as np
import scipy.special

from fmu_jax.noisy_finetuning.schedule import check_counts
from fmu_jax.objective import Scalar
from fmu_jax.privacy import check_not_negative, check_positive, check_probability, gaussian_epsilon

#: Roundings of a number below.
_FEW, _UNIT = 64, np.finfo(float).eps / 2
#: Epsilons at which the curve is compared with that of a mu, and halvings of a bracket of mus.
_POINTS, _HALVINGS = 500, 40
#: Epsilons of a search, and its rounds, each of which looks between two of the last.
_FINER, _ROUNDS = 64, 5
#: Absolute error allowed for in a delta that is a difference of two probabilities.
_CLOSE = 1e-12


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
    check_counts(steps=steps)
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


def contraction_epsilon(diameter: Scalar, noise: Scalar, steps: int, delta: Scalar) -> float:
    """An epsilon with ``contraction_delta(.., epsilon) <= delta``, the least up to 1e-8 of its size or of one step's.

    Args:
      diameter: As for ``contraction_delta``, as ``noise`` and ``steps``.
      noise: As there.
      steps: As there.
      delta: In (0, 1).

    Returns:
      The epsilon; infinite where ``delta`` is below 4e-12, which the curve's own accuracy does not tell from zero.

    >>> round(contraction_epsilon(2.0, 1.0, 4, 1e-5), 3)
    1.876
    """
    check_positive(diameter=diameter, noise=noise)
    check_probability(delta=delta)
    found, left = math.inf, float(delta) - 4 * _CLOSE
    if not left > 0:
        return found
    # One step is a Gaussian, and further ones take away.
    low, high = 0.0, float(gaussian_epsilon(np.float64(diameter / noise), 1.0, np.float64(left))) * (1 + 1e-9)
    if math.isinf(high):
        return found
    for _ in range(_ROUNDS):
        grid = np.linspace(low, high, _FINER + 1)
        enough = np.flatnonzero(contraction_delta(diameter, noise, steps, grid) <= delta)
        if not enough.size:
            break
        found, low = float(grid[enough[0]]), float(grid[max(enough[0] - 1, 0)])
        high = found
    return found


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
