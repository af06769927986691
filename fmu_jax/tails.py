r"""Upper bounds of Gaussian and binomial tail probabilities that hold in whatever floating-point type is at hand.

A guarantee that a rounding made smaller than the truth is none. So every function here returns no less than the exact
value of its arguments, and each is written once for two worlds: NumPy in float64, where all arguments are concrete,
and JAX in the type at hand, where something is traced (``outward`` chooses). Both probabilities are integrals of
positive terms, so nothing cancels:

    delta(mu, epsilon) = phi(a) int_0^oo e^(a s - s^2/2) (1 - e^(-mu s)) ds,       a = mu/2 - epsilon/mu,
    I_x(a, b) = x^a y^b / B(a, b) int_0^oo e^(-a s) (y + x e^-s)^-(a+b) ds,        y = 1 - x.

The substitution ``s = e^t`` makes them smooth on the whole line at every scale, where the trapezoidal rule converges
exponentially (Trefethen & Weideman 2014, "The exponentially convergent trapezoidal rule"). Arguments are rounded
outwards first (both are monotone), the sum last.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from fmu_jax.tracing import as_arrays, is_traced

#: Roundings allowed for in an exponent or an argument; each is tested against 50 digits.
_FEW = 8


def outward(
    core: Callable[..., Any], *numbers: Any, up: bool = True, slopes: Callable[..., Any] | None = None
) -> Array:
    """Evaluates ``core(xp, *numbers)``: in float64 on the host if all are concrete, else in the dtype at hand.

    Args:
      core: Function of a namespace, ``numpy`` or ``jax.numpy``, and arrays; its result is already rounded the right
        way.
      *numbers: Numbers or arrays that broadcast.
      up: Which way the result is rounded when it is put into the dtype of the arguments.
      slopes: ``slopes(value, *numbers)``, the partial derivative in each number, for a core that searches: its steps
        have no derivative that is of use. An infinite value has the derivative zero.

    Returns:
      An array of that dtype, at least float32.
    """
    dtype = _dtype(numbers)
    if is_traced(*numbers):
        arrays = tuple(jnp.asarray(number).astype(dtype) for number in numbers)
        return core(jnp, *arrays) if slopes is None else _searched(core, slopes, arrays)
    with np.errstate(all="ignore"):
        exact = np.asarray(core(np, *(np.asarray(number, np.float64) for number in numbers)))
        rounded = exact.astype(dtype)
        short = rounded < exact if up else rounded > exact
        return as_arrays(np.where(short, np.nextafter(rounded, np.asarray(np.inf if up else -np.inf, dtype)), rounded))


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _searched(core, slopes, numbers):
    del slopes
    return core(jnp, *numbers)


@_searched.defjvp
def _(core, slopes, primals, tangents):
    value = _searched(core, slopes, *primals)
    parts = zip(slopes(value, *primals[0]), tangents[0], strict=True)
    total = sum(jnp.where(value == jnp.inf, 0, slope) * moved for slope, moved in parts)
    return value, jnp.broadcast_to(total, value.shape)


def _dtype(numbers) -> np.dtype:
    floats = [number.dtype for number in numbers if hasattr(number, "dtype") and _strong(number)]
    wide = np.result_type(np.float32, *floats) if floats else np.dtype(float)
    return jax.dtypes.canonicalize_dtype(wide)


def _strong(number) -> bool:
    return jnp.issubdtype(number.dtype, jnp.floating) and not getattr(number, "weak_type", False)


def unit_of(xp, number) -> float:
    """Unit roundoff of an array's dtype."""
    return float(xp.finfo(number.dtype).eps) / 2


def round_up(xp, number, roundings: int, positive=True):
    """A number that neither ``roundings`` roundings nor underflow can have left below the exact one, if ``positive``.

    Where that is false the number is zero and exact, and so is the result; its derivative is the number's.
    """
    return number * (1 + roundings * unit_of(xp, number)) + xp.where(positive, float(xp.finfo(number.dtype).tiny), 0)


def bisect(xp, sound: Callable[[Any], Any], good, bad, *, steps: int):
    """The last ``good`` end of a bracket: ``sound`` held there, or it is the one given."""

    def halve(bracket):
        good, bad = bracket
        middle = good + (bad - good) / 2
        fine = sound(middle)
        return xp.where(fine, middle, good), xp.where(fine, bad, middle)

    if xp is np:
        bracket = good, bad
        for _ in range(steps):
            bracket = halve(bracket)
        return bracket[0]
    return jax.lax.fori_loop(0, steps, lambda _, bracket: halve(bracket), (good, bad))[0]


def _nodes(xp, scale) -> tuple[Any, float]:
    """Nodes ``s = e^t / scale`` of the rule, on a new last axis, and its step; what is left out is below the unit."""
    low, high, step = (-40.0, 3.9, 0.075) if scale.dtype == np.float64 else (-19.0, 3.1, 0.17)
    v = np.exp(np.arange(low, high, step)).reshape(*[1] * scale.ndim, -1)
    return xp.asarray(v, dtype=scale.dtype) / scale[..., None], step


def _mills(xp, t, mu=None):
    """``int_0^oo e^(t s - s^2/2) (1 - e^(-mu s)) ds`` for ``t <= 3``; without ``mu`` it is ``Phi(t) / phi(t)``.

    The relative error is below ``_relative``.
    """
    s, step = _nodes(xp, xp.maximum(1, -t))
    terms = s * xp.exp(t[..., None] * s - s * s / 2)
    return step * xp.sum(terms if mu is None else -terms * xp.expm1(-mu[..., None] * s), axis=-1)


def _relative(xp, number) -> float:
    """Relative error of a sum over nodes, and of the rule itself."""
    return 2048 * unit_of(xp, number)


def gaussian_delta_bound(xp, mu, epsilon):
    """Upper bound of ``delta(mu, epsilon)`` between two Gaussians ``mu`` apart; zero at ``mu = 0``, never above 1.

    It is 1 where a number is NaN, or ``mu`` infinite or, which only a trace lets through, negative.
    """
    unit = unit_of(xp, mu)
    mu, epsilon = xp.broadcast_arrays(mu, epsilon)
    wide = mu * (1 + _FEW * unit)
    safe = xp.where(mu > 0, wide, 1)
    slope, half = epsilon / safe, safe / 2
    a = half - slope * (1 - _FEW * unit) + _FEW * unit * (half + slope)
    # delta grows in a and in mu; below -60 it is under the smallest number.
    clipped = xp.clip(a, -60, 3)
    small = xp.exp(-clipped * clipped / 2) * _mills(xp, clipped, safe)
    # Beyond 3 the complement phi(a) (M(-a) + M(a - mu)) is below 1/300, and bounded from below.
    far = xp.clip(a, 3, 60)
    rest = _mills(xp, -far) + _mills(xp, xp.clip(far - safe * (1 + _FEW * unit), -1e18, 0))
    large = 1 - xp.exp(-far * far / 2) / _ROOT * rest * (1 - _relative(xp, a) - _FEW * far * far * unit)
    # An exponent of size q is off by q times its roundings.
    small = round_up(xp, small / _ROOT * (1 + _relative(xp, a) + _FEW * clipped * clipped * unit), _FEW)
    bound = xp.minimum(xp.where(a > 3, large * (1 + _FEW * unit), small), 1)
    return xp.where((mu > 0) & (bound <= 1), bound, xp.where(mu == 0, xp.zeros_like(bound), xp.ones_like(bound)))


_ROOT = (2 * np.pi) ** 0.5


def beta_cdf_bound(xp, a, b, x, y, front=None):
    """Upper bound of the regularised incomplete beta function ``I_x(a, b)``, ``a, b >= 1``; 1 well above its mean.

    ``x`` and ``y = 1 - x`` are given apart, so that neither loses digits near 0 or 1. Each number may be off by a few
    roundings: what that does to the logarithm of the result is their number times ``|a - (a + b) x|``, and added.
    ``front`` is ``beta_front(xp, a, b)``, for a caller that looks at many ``x``.
    """
    unit, total, upper = unit_of(xp, x), a + b, x > y
    # Each of these twice, in the smaller of x and y: the other's digits would cancel.
    ahead = xp.where(upper, b - total * y, total * x - a)
    spread = xp.sqrt(total * x * y)
    s, step = _nodes(xp, xp.maximum(xp.maximum(spread, -ahead), float(xp.finfo(x.dtype).tiny)))
    share = xp.where(upper, y, x)[..., None] * xp.where(upper[..., None], xp.expm1(s), xp.expm1(-s))
    linear = xp.where(upper, b, -a)[..., None] * s
    curved = total[..., None] * xp.log1p(share)
    exponent = linear - curved + _FEW * unit * (xp.abs(linear) + xp.abs(curved))
    exponent = xp.where(curved < xp.inf, exponent, -xp.inf)
    integral = step * xp.sum(s * xp.exp(exponent), axis=-1)
    front = beta_front(xp, a, b) if front is None else front
    front = front - _deviance(xp, a, total * x) - _deviance(xp, b, total * y)
    error = 2 * _FEW * unit * (_FEW + 2 * xp.abs(ahead) + xp.abs(front) + total * unit)
    bound = xp.exp(front + error + xp.log(integral)) * (1 + 4 * _relative(xp, x))
    return xp.where(ahead > 2 * spread, 1, xp.minimum(round_up(xp, bound, _FEW), 1))


def beta_front(xp, a, b):
    """The logarithm of ``x^a y^b / B(a, b)`` at its largest, ``x = a / (a + b)``."""
    front = (xp.log(a / (a + b)) + xp.log(b) - float(np.log(2 * np.pi))) / 2 + _stirling(xp, a + b)
    return front - _stirling(xp, a) - _stirling(xp, b)


def _deviance(xp, count, mean):
    """``count log(count / mean) + mean - count``, >= 0 (Loader 2000)."""
    gap = (count - mean) / mean
    close = xp.abs(gap) < 0.1
    small = xp.where(close, gap, 0)
    # (1 + g) log(1 + g) - g = g^2/2 - g^3/6 + g^4/12 - ...
    series = 1 / (16 * 17)
    for k in range(16, 1, -1):
        series = 1 / (k * (k - 1)) - small * series
    logarithm = xp.where(gap < -0.5, xp.log(count / mean), xp.log1p(xp.maximum(gap, -0.5)))
    return xp.where(close, mean * (small * small) * series, count * logarithm - (count - mean))


def _stirling(xp, z):
    """``log Gamma(z) - (z - 1/2) log z + z - log(2 pi)/2`` for ``z >= 1``."""
    # delta(z) = delta(z + 1) + (z + 1/2) log(1 + 1/z) - 1, and the series is exact to 1e-17 from 17 on.
    steps = np.arange(16.0).astype(z.dtype).reshape(*[1] * z.ndim, -1)
    on_the_way = xp.where((z < 16)[..., None], z[..., None], 16) + steps
    shift = xp.sum((on_the_way + 0.5) * xp.log1p(1 / on_the_way) - 1, axis=-1)
    far = xp.where(z < 16, z + 16, z)
    square = 1 / (far * far)
    series = (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square * (1 / 1680 - square / 1188)))) / far
    return xp.where(z < 16, shift, 0) + series
