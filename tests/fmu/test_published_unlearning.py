"""The accountants against every configuration that the authors of noisy fine-tuning published.

Source: the run files of stair-lab/certified-unlearning-neural-networks-icml-2025, which have 66 configurations of the
iteration route, 53 but for repetitions, and six pairs of noise and clip of the contraction route.
"""

import math

import numpy as np
import pytest
import scipy.stats

from fmu_jax import noisy_finetuning as tuning
from fmu_jax import privacy

#: By Renyi rate: clip of the start, clip of the gradient, step size, decay.
ITERATION = {
    0.1: """
        0.01 10 0.0001 750 | 0.01 100 0.0001 10 | 1 100 0.001 500
    """,
    1: """
        0.01 0.1 0.001 10 | 0.01 1 0.001 0.5 | 0.01 1 0.001 10 | 0.01 1 0.01 10 | 0.01 10 0.0001 0.5 |
        0.01 10 0.0001 10 | 0.01 10 0.0001 100 | 0.01 10 0.0001 500 | 0.01 10 0.0001 750 | 0.01 10 0.001 0.5 |
        0.01 10 0.001 10 | 0.01 100 0.0001 10 | 0.01 100 0.0001 100 | 0.01 100 0.001 500 | 0.1 0.1 0.01 10 |
        0.1 1 0.001 100 | 0.1 10 0.001 1 | 0.1 10 0.001 50 | 0.1 10 0.01 1 | 0.1 100 0.0001 50 | 0.1 100 0.001 50 |
        0.1 100 0.001 200 | 1 0.1 0.01 10 | 1 1 0.001 50 | 1 1 0.001 100 | 1 10 0.001 500 | 1 10 0.01 50 |
        1 100 0.001 500 | 20 10 0.01 50 | 20 100 0.001 500
    """,
    10: """
        0.01 10 0.0001 750 | 0.01 100 0.0001 10 | 0.1 0.01 0.1 0.1 | 0.1 10 0.001 1 | 0.1 10 0.1 0.1 | 0.1 10 0.1 1 |
        0.1 100 0.1 1 | 1 0.1 0.1 1 | 1 10 0.1 0.1 | 10 0.1 0.1 1 | 10 5 0.01 25
    """,
    100: """
        1 0.01 0.1 0.1 | 1 0.1 0.1 0.1 | 1 1 0.1 0.1 | 1 1 0.1 1 | 1 10 0.1 0.1 | 1 10 0.1 1 | 10 1 0.1 1 |
        10 100 0.1 0.1 | 20 1 0.1 1
    """,
}
#: Noise and clip of the model: the published target is epsilon 1 at delta 1e-5.
CONTRACTION = ((0.01, 0.001), (0.01, 0.01), (0.2, 0.2), (0.5, 0.5), (0.5, 0.625), (0.5, 0.975))
CASES = [(rate, *map(float, case.split())) for rate, cases in ITERATION.items() for case in cases.strip().split("|")]


def published_steps(start_clip: float, gradient_clip: float, step_size: float, decay: float) -> int:
    """The number of steps that their code takes."""
    steps = math.ceil(start_clip / (gradient_clip * step_size))
    fewer = math.ceil(math.log(2 * start_clip * decay / gradient_clip) / (step_size * decay))
    return fewer if 0 < fewer < steps else steps


def test_all_of_them_are_here():
    assert len(set(CASES)) == len(CASES) == 53


@pytest.mark.parametrize(("rate", "start_clip", "gradient_clip", "step_size", "decay"), CASES)
def test_the_published_noise_has_the_published_rate(rate, start_clip, gradient_clip, step_size, decay):
    """Their closed form of the noise gives mu^2 / 2, the rate of the Renyi divergence, here."""
    steps = published_steps(start_clip, gradient_clip, step_size, decay)
    keep = 1 - step_size * decay
    reach = 2 * start_clip * keep**steps + 2 * gradient_clip / decay * (1 - keep**steps)
    noise = reach * math.sqrt(step_size * decay * (2 - step_size * decay) / (2 * rate * (1 - keep ** (2 * steps))))
    plan = tuning.Schedule(
        start_clip=start_clip, noise=noise, steps=steps, step_size=step_size, gradient_clip=gradient_clip, decay=decay
    )
    found = tuning.guarantee(plan, size=10, dtype=float)
    assert found.mu**2 / 2 == pytest.approx(rate, rel=1e-9)
    assert found.route == "iteration"
    if rate == 1:  # Renyi divergence alpha mu^2 / 2 of every order: what it says of epsilon is never below the exact.
        orders = np.linspace(1.01, 100, 20_000)
        renyi = orders - (math.log(1e-5) + np.log(orders)) / (orders - 1) + np.log((orders - 1) / orders)
        assert 6.5 < found.epsilon(1e-5) <= renyi.min() < 7.1


def recursion(noise: float, clip: float, steps: int, epsilon: float) -> float:
    """Balle et al. (2019), Theorem 1, by SciPy, as their code has it."""
    delta, apart = 1.0, 2 * clip / noise
    for _ in range(steps):
        inner = math.log1p(math.expm1(epsilon) / delta)
        below = scipy.stats.norm.sf(inner / apart - apart / 2), scipy.stats.norm.sf(inner / apart + apart / 2)
        delta *= float(below[0] - math.exp(inner) * below[1])
    return delta


@pytest.mark.parametrize(("noise", "clip"), CONTRACTION)
def test_the_published_clips_of_the_model_reach_their_epsilon_in_as_many_steps(noise, clip):
    """The first number of steps whose delta at epsilon 1 is below 1e-5 is theirs; the guarantee says the same epsilon.

    The Gaussian that covers the curve would say more.
    """
    steps = next(count for count in range(1, 1000) if recursion(noise, clip, count, 1.0) <= 1e-5)
    now, before = (recursion(noise, clip, count, 1.0) for count in (steps, steps - 1))
    assert float(tuning.contraction_delta(2 * clip, noise, steps, 1.0)) == pytest.approx(now, rel=1e-6, abs=2e-12)
    assert now <= 1e-5 < before
    plan = tuning.Schedule(start_clip=30.0, noise=noise, steps=steps, step_size=1e-4, decay=10.0, model_clip=clip)
    found = tuning.guarantee(plan, size=1000, dtype=float)
    epsilon = found.epsilon(1e-5)
    assert epsilon <= 1.0
    assert recursion(noise, clip, steps, epsilon) == pytest.approx(1e-5, rel=1e-4)
    assert recursion(noise, clip, steps, epsilon * 0.999) > 1e-5
    assert found.route == ("contraction" if steps > 1 else "iteration")  # One step is the same by both.
    assert epsilon <= float(privacy.gaussian_epsilon(found.mu, 1.0, 1e-5 - found.failure)) * (1 + 1e-9)
