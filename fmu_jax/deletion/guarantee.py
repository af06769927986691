"""The promise of a store: the noise of its releases, the cost of a series of them, and its wording.

Every request that changes the model publishes a release (``fmu_jax.releases``): the unlearned parameters with fresh
noise of a scale and a shape that both worlds share, ``A = X'X / (4 n) + l2 I`` of the ``n`` rows that remain. Release
``i`` may be ``admitted(i)`` away from the retrained model, a number that depends on ``i`` alone and so is fixed
beforehand, as the composition of adaptive releases asks:

    the first `releases` ones   the admitted distance: unlearned, or retrained where the certified one exceeds it
    all later ones              `RETRAINED` times it: always retrained, so that a series never ends

The first ones spend all of ``mu^2`` except a share `RESERVE`, which lasts for ``RESERVE / RETRAINED^2`` = 16,384 times
as many later ones. The model of the training carries no noise: both worlds published it before anybody was deleted.
"""

import functools
import math
import secrets
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from fmu_jax import privacy, releases, stream
from fmu_jax.releases.publishing import mu_of

if TYPE_CHECKING:
    from fmu_jax.deletion.model import Settings

RETRAINED = 2.0**-10
"""What a release beyond the planned ones may be off, as a share of the admitted distance."""
RESERVE = 1 / 64
"""Share of ``mu^2`` that is kept for releases beyond the planned ones."""
DIGITS = 6


class Cost(NamedTuple):
    """The cost of some releases: of the last one alone and of all together; `left` planned ones are to come.

    Numbers are rounded up to `DIGITS` digits, so that a certificate never says too little.
    """

    mu: float
    epsilon: float
    series_mu: float
    series_epsilon: float
    left: int


def scale_for(mu: float, count: int, admitted: float) -> float:
    """The standard deviation of each release's noise, for ``count`` planned ones that cost at most ``mu`` together."""
    return float(releases.scale_for(admitted, mu=mu * math.sqrt(1 - RESERVE), releases=count))


def admitted(settings: "Settings", number: int) -> float:
    """How far release ``number``, counted from 1, may be from the retrained model, in the norm of the shape."""
    return settings.admitted * (1.0 if number <= settings.releases else RETRAINED)


def shape_of(x: np.ndarray, l2: float) -> np.ndarray:
    """The shape of the noise, ``(d, d)``, from the rows ``(n, d)``, removed ones all zero: little where data look."""
    return x.T @ x / (4 * max(x[:, -1].sum(), 1.0)) + l2 * np.eye(x.shape[1])


def distance(state: stream.State, shape: np.ndarray) -> float:
    """Certified bound on how far the model is from the retrained one, in the norm of the shape."""
    return float(stream.distance_to_retrained(state, shape=jax.device_put(shape)))


def fresh_key() -> jax.Array:
    """A key of 128 bits from the operating system's source of secrets, never stored."""
    bits = np.frombuffer(secrets.token_bytes(16), np.uint32)
    return jax.random.wrap_key_data(jax.device_put(bits), impl="rbg")


def publish(settings: "Settings", params: Any, apart: float, number: int, shape: np.ndarray) -> np.ndarray:
    """The parameters of release ``number``, with fresh noise.

    Raises:
      ValueError: The distance exceeds the admitted one, or the noise would drown in rounding.
    """
    released = releases.release(
        params,
        apart,
        key=fresh_key(),
        scale=settings.scale,
        admitted=admitted(settings, number),
        shape=jax.device_put(shape),
        delta=settings.delta,
    )
    return np.asarray(released.params)


def cost(settings: "Settings", number: int) -> Cost:
    """The cost after release ``number``; nothing at 0."""
    if not number:
        return Cost(0.0, 0.0, 0.0, 0.0, settings.releases)
    first, later = (_mu(settings.admitted * share, settings.scale) for share in (1.0, RETRAINED))
    mu, early = (first if number <= settings.releases else later), min(number, settings.releases)
    # ``releases.compose`` of two kinds of equal parts, with room for its roundings.
    total = math.sqrt(early * first**2 + (number - early) * later**2) * (1 + 1e-14)
    epsilon, series_epsilon = _epsilon(mu, settings.delta), _epsilon(total, settings.delta)
    spent = Cost(mu, epsilon, total, series_epsilon, settings.releases - early)
    return spent._replace(**{name: rounded_up(getattr(spent, name), DIGITS) for name in Cost._fields[:4]})


@functools.lru_cache
def _mu(apart: float, scale: float) -> float:
    return float(mu_of(apart, np.asarray(scale, np.float64)))


@functools.lru_cache(maxsize=4096)
def _epsilon(mu: float, delta: float) -> float:
    return float(privacy.gaussian_epsilon(mu, 1.0, delta))


def rounded_up(value: float, digits: int) -> float:
    """The next number of so many significant digits at or above a value.

    >>> rounded_up(0.0123412, 4), rounded_up(2.0, 4)
    (0.01235, 2.0)
    """
    if value == 0 or not math.isfinite(value):
        return value
    places = digits - 1 - math.floor(math.log10(abs(value)))
    nearest = round(value, places)
    return nearest if nearest >= value else round(nearest + 10.0**-places, places)


def right_guesses(mu: float) -> float:
    """The largest share of right guesses, at even chances, of unlearned or retrained: ``Phi(mu / 2)``, in percent.

    >>> right_guesses(0.0), right_guesses(0.2681)
    (50.0, 55.4)
    """
    return math.ceil(1000 * (0.5 + math.erf(mu / math.sqrt(8)) / 2) - 1e-9) / 10


def limit_text(value: float, digits: int = 3) -> str:
    """A number for a sentence: so many digits, rounded up, so that no limit is stated too low."""
    return f"{rounded_up(value, digits):g}"


def statement(settings: "Settings", number: int, fresh: bool) -> list[str]:
    """The promise of a certificate, in sentences.

    Verification compares them with those of every certificate of a store: another wording would refuse older stores.

    Args:
      settings: Settings of the store.
      number: How many releases were published so far.
      fresh: Whether the last one came with this certificate.
    """
    spent, delta = cost(settings, number), f"delta {settings.delta:g}"
    planned = _epsilon(settings.mu, settings.delta)
    series = (
        f"Planned is a series of {settings.releases} releases that together stay within epsilon "
        f"{limit_text(planned, 4)} at {delta} (mu {limit_text(settings.mu, 4)}); {spent.left} of them are left. "
        "Later ones are retrained before they are published, and the limit stays."
    )
    about = (
        "This is about the published models. It is not about the table, its copies, backups and logs, nor about "
        "predictions and models that were published before a person was deleted. How columns are encoded and scaled, "
        "who was held out, and the settings of the training were chosen with everybody and are kept."
    )
    if not number and not fresh:
        return [
            "Nobody whom the published model was trained on has been deleted. It was trained without noise and may "
            "reflect all of them.",
            series,
            about,
        ]
    together = (
        f"All releases of this store together, {number} so far, also if requests were chosen by looking at the models: "
        f"epsilon {limit_text(spent.series_epsilon)} at {delta} (Gaussian differential privacy mu "
        f"{limit_text(spent.series_mu)}), at most {right_guesses(spent.series_mu):g} % right guesses."
    )
    if not fresh:
        unchanged = (
            "This request deleted held-out people only. The published model was not trained on them and stays as it is."
        )
        return [unchanged, together, series, about]
    return [
        f"With this request a new model was published, release {number} of this store. Random noise, drawn anew, "
        "was added to it.",
        "The guarantee limits how well anybody who sees the published models can tell whether the people deleted so "
        "far were unlearned, or the model was trained anew without them. What follows gives the limits: of this one "
        "and of all releases together.",
        f"This release alone: epsilon {limit_text(spent.epsilon)} at {delta} (Gaussian differential privacy mu "
        f"{limit_text(spent.mu)}). "
        f"Whoever has to guess which of the two happened, at even chances, is right in at most "
        f"{right_guesses(spent.mu):g} % of cases; a coin is right in 50 %.",
        together,
        series,
        about,
    ]
