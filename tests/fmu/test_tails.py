"""No privacy number or confidence bound claims less than the truth: mpmath, over the whole range, in both dtypes."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from fmu_jax import privacy
from fmu_jax.audit.binomial import clopper_pearson
from fmu_jax.output_perturbation import neel_epsilon, neel_sigma, publish_sigma_from

mp.mp.dps = 60

#: How a function may be called: on the host, or traced in either dtype; and how loose its rounding may be there.
WAYS = {"host": (np.float64, False, 1e-7), "float64": (np.float64, True, 1e-7), "float32": (np.float32, True, 4e-3)}
#: For what takes mpmath seconds: the same lines on the host, and the same traces in float32.
SOME = ["host", pytest.param("float64", marks=pytest.mark.slow), "float32"]


def call(way, function, *numbers):
    """Results as float64, and the numbers as they arrived."""
    dtype, traced, _ = WAYS[way]
    numbers = [np.asarray(number, np.float64).astype(dtype) for number in numbers]
    found = (jax.jit(function) if traced else function)(*numbers)
    assert found.dtype == dtype
    return np.asarray(found, np.float64), [number.astype(np.float64) for number in numbers]


def delta_of(mu, epsilon):
    """The exact delta of two Gaussians, to 40 digits."""
    mu, epsilon = mp.mpf(float(mu)), mp.mpf(float(epsilon))
    with mp.workdps(130):
        high, low = mu / 2 - epsilon / mu, -mu / 2 - epsilon / mu
        return mp.ncdf(high) - mp.exp(epsilon) * mp.ncdf(low) if high > -1000 else mp.mpf(0)


def points(count, seed=0):
    """``mu`` from 1e-12 to 1e3, with epsilons that give deltas from 1e-300 to 1 - 1e-12."""
    rng = np.random.default_rng(seed)
    mu = 10 ** rng.uniform(-12, 3, count)
    aimed = mu * (mu / 2 - rng.uniform(-38, 8, count))
    free = 10 ** rng.uniform(-15, 3, count)
    return mu, np.where(np.arange(count) % 8 == 0, 0, np.clip(np.where(rng.random(count) < 0.3, free, aimed), 0, 1e3))


@pytest.mark.parametrize("way", WAYS)
def test_gaussian_delta_is_never_below_the_truth(way):
    found, (mu, epsilon) = call(way, lambda mu, epsilon: privacy.gaussian_delta(mu, 1.0, epsilon), *points(300))
    truth = [delta_of(*point) for point in zip(mu, epsilon, strict=True)]
    assert all(mp.mpf(value) >= true for value, true in zip(found, truth, strict=True))
    tiny = float(np.finfo(WAYS[way][0]).tiny)
    assert (found <= np.array(truth, float) * (1 + WAYS[way][2]) + 2 * tiny).all()


@pytest.mark.parametrize("way", SOME)
def test_gaussian_epsilon_and_mu_keep_delta_over_the_whole_range(way):
    loose = 1 + WAYS[way][2]
    rng = np.random.default_rng(1)
    # In float32 a delta below the smallest number is no number.
    least = -300 if WAYS[way][0] == np.float64 else -36
    deltas = np.where(rng.random(200) < 0.7, 10 ** rng.uniform(least, 0, 200), 1 - 10 ** rng.uniform(-12, -1, 200))
    deltas = np.minimum(deltas, 1 - 1e-7 if least == -36 else 1 - 1e-12)
    epsilon, (mu, delta) = call(
        way, lambda mu, delta: privacy.gaussian_epsilon(mu, 1.0, delta), points(150)[0], deltas[:150]
    )
    for m, d, e in zip(mu, delta, epsilon, strict=True):
        assert delta_of(m, e) <= mp.mpf(d)
        # No looser than the rounding of mu and delta: a little less epsilon would not do.
        assert e == 0 or delta_of(m * loose, e * (1 - 1e-6) - 1e-6 * m) * loose >= mp.mpf(d) * (1 - 1e-6)
    shift, (epsilon, delta) = call(way, privacy.gaussian_mu, 10 ** rng.uniform(-9, 3, 200), deltas)
    for m, e, d in zip(shift, epsilon, delta, strict=True):
        assert delta_of(m, e) <= mp.mpf(d)
        assert delta_of(m * loose, e) * loose >= mp.mpf(d)


@pytest.mark.parametrize("way", WAYS)
def test_closed_forms_are_rounded_to_the_safe_side(way):
    rng = np.random.default_rng(2)
    r, sigma, epsilon = 10 ** rng.uniform(-9, 3, 100), 10 ** rng.uniform(-3, 3, 100), 10 ** rng.uniform(-9, 2, 100)
    delta = np.where(rng.random(100) < 0.7, 10 ** rng.uniform(-30, 0, 100), 1 - 10 ** rng.uniform(-6, -1, 100))

    def quantile(d):
        return mp.findroot(lambda z: mp.log(mp.ncdf(-z) / d), float(privacy._upper_quantile(np, float(d))))

    def tail_form(r, sigma, delta):
        return r / sigma * (r / sigma / 2 + quantile(delta))

    def classical(r, sigma, delta):
        return r / sigma * mp.sqrt(2 * mp.log(mp.mpf(1.5) / delta))

    def admitted(e, sigma, delta):
        root = mp.sqrt(quantile(delta) ** 2 + 2 * e)
        return sigma * min(e / mp.sqrt(2 * mp.log(mp.mpf(1.5) / delta)), root - quantile(delta))

    def neel(r, sigma, delta):
        rho = (r / sigma) ** 2 / 2
        return rho + 2 * mp.sqrt(rho * mp.log(1 / delta))

    def neel_noise(r, e, delta):
        left = mp.log(1 / delta)
        return r / (mp.sqrt(2) * (mp.sqrt(left + e) - mp.sqrt(left)))

    table = (
        (privacy.epsilon_from, classical, (r, sigma, delta), 1),
        (privacy.certified_epsilon, lambda *v: max(classical(*v), tail_form(*v)), (r, sigma, delta), 1),
        (privacy.residual_from, admitted, (epsilon, sigma, delta), -1),
        (neel_epsilon, neel, (r, sigma, delta), 1),
        (neel_sigma, neel_noise, (r, epsilon, delta), 1),
    )  # fmt: skip
    for function, formula, numbers, sign in table:
        found, arrived = call(way, function, *numbers)
        for value, *point in zip(found, *arrived, strict=True):
            truth = formula(*map(mp.mpf, point))
            assert sign * (mp.mpf(value) - truth) >= 0, (function.__name__, point)
            assert abs(mp.mpf(value) - truth) <= 1e-2 * truth + 1e-37, (function.__name__, point)
    noise, (far, e, d) = call(way, publish_sigma_from, r, epsilon, delta)
    assert all(delta_of(mp.mpf(a) / mp.mpf(s), b) <= c for a, s, b, c in zip(far, noise, e, d, strict=True))


def left_tail(a, b, x, y):
    """``I_x(a, b)`` left of its mean: Gauss-Legendre quadrature in the log-odds."""
    a, b, odds = mp.mpf(int(a)), mp.mpf(int(b)), mp.log(x / y)
    front = mp.loggamma(a + b) - mp.loggamma(a) - mp.loggamma(b)
    scale = 1 / max(mp.sqrt((a + b) * x * y), a - (a + b) * x)
    ends = [mp.mpf(0)] + [scale * mp.mpf(4) ** j for j in range(-1, 4)]
    return mp.quad(lambda s: mp.exp(a * (odds - s) - (a + b) * mp.log1p(mp.exp(odds - s)) + front), ends)


@pytest.mark.parametrize("way", SOME)
def test_clopper_pearson_covers_up_to_a_million_million_trials(way):
    rng = np.random.default_rng(3)
    n = np.floor(10 ** rng.uniform(0.5, 12, 8))
    k = np.stack([np.zeros(8), np.full(8, 3.0), n - 1, np.floor(n * rng.random(8))], axis=1).ravel()[::2]
    n = np.repeat(n, 2)
    k = np.minimum(np.where(np.arange(16) % 8 == 5, n, k), n)
    cases = [(1000, 5000), (10, 10**6), (500_000, 10**6), (5 * 10**7, 10**8), (3, 10**9)]
    k, n = np.append(k, [c[0] for c in cases]), np.append(n, [c[1] for c in cases])
    ends = []
    for confidence in (0.95, 1 - 1e-10):
        for end in (0, 1):
            found, (ks, ns) = call(way, lambda k, n: clopper_pearson(k, n, confidence=confidence)[end], k, n)  # noqa: B023 - called here
            ends.append((end, (1 - mp.mpf(confidence)) / 2, found))
    with mp.workdps(25):
        for end, tail, found in ends:
            for p, successes, trials in zip(found, ks, ns, strict=True):
                failures = trials - successes
                certain = p == 0 if end == 0 else p == 1
                if certain or (failures if end else successes) == 0:
                    assert certain
                    continue
                p = mp.mpf(p)
                at = (
                    left_tail(failures, successes + 1, 1 - p, p)
                    if end
                    else left_tail(successes, failures + 1, p, 1 - p)
                )
                assert at <= tail, (way, end, successes, trials)
                # No looser than a few units of p, where p is not next to 1, nor than the rounding of the tail.
                assert at >= tail * (0.98 if way != "float32" else 0.6) or (1 - p if end or p > 0.5 else p) < 1e-5


def test_certain_success_leaves_no_digit_of_the_failure():
    """Integers traced in float32: three failures in 2 10^9 are still three."""
    successes, trials = jnp.asarray(1_999_999_997, jnp.int32), jnp.asarray(2_000_000_000, jnp.int32)
    confidence = jnp.float32(0.95)
    low, high = jax.jit(lambda k, n, c: clopper_pearson(k, n, confidence=c))(successes, trials, confidence)
    assert low.dtype == np.float32
    assert low <= 1 - 4e-9
    assert high == 1
    few = jax.jit(lambda k, n, c: clopper_pearson(k, n, confidence=c))(trials - successes, trials, confidence)
    assert few[0] == pytest.approx(6.1867e-1 / 2e9, rel=1e-3)
    assert few[1] == pytest.approx(8.7673 / 2e9, rel=1e-3)
