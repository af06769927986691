r"""Finds the regimes of robustness in a sweep: weak, Bayes-aligned, excessive (Srinivas et al. 2023, section 4).

A sweep trains models at strengths ``s_0 < s_1 < ...``, for each seed. A model has the accuracy ``a``, and deviations
``on`` and ``off`` under steps of one length on and off the manifold. With ``a*`` the best accuracy of a seed's models,
those with ``a >= a* - tolerance`` are *accurate*. The rules, for each seed by itself:

    excessive    the strengths beyond the last one that is accurate
    aligned      the unbroken run of strengths, up to that last one, that are accurate and have off < ratio * on
    weak         the strengths before that run

where ``off < ratio * on`` never holds for ``on = 0``, whatever the ratio: a model that does not move along the manifold
is not aligned. A seed whose best accuracy is at most ``chance + tolerance`` has learned nothing, and gives no strength
a label.

**What the deviations should be.** Steps of one length compare a sum over ``k`` directions with one over ``d - k``. If
the share ``s`` of a gradient's squared length is off the manifold, they compare, to first order,
``off / on = sqrt(s / (1 - s) k / (d - k))`` (``unit_step_ratio``): below 1 as soon as ``s < 1 - k / d``, which is the
share of a gradient without any direction (``isotropic_share``). Robustness off the manifold in the paper's sense, more
energy on than off, is ``s < 1/2``: ``read_shares`` reads the regimes by it, with ``on = 1 - s`` and ``off = s``.

So a label never goes back along a sweep, whatever the curves do; where they cross more than once, the last crossing
counts, and a tie is not aligned. A seed may lack a regime: no strength is excessive while accuracy holds to the end,
and none is aligned where ``off`` stays above until accuracy falls.

Over seeds, a strength has the label that more than half of them give it, and none where there is no such label. A
regime that no strength has is not made up: it is listed with the reason.
"""

from typing import Any, Literal, NamedTuple, get_args

import numpy as np

#: Regimes, in the order of growing strength.
Label = Literal["weak", "aligned", "excessive"]
LABELS: tuple[Label, ...] = get_args(Label)

_ABSENCE: dict[Label, str] = {
    "weak": "the weakest strength is aligned already",
    "aligned": "off-manifold deviation does not fall below on-manifold deviation while the model is accurate",
    "excessive": "the strongest strength is still accurate",
}


class Regimes(NamedTuple):
    """The regimes that ``read`` found.

    Attributes:
      strengths: Strengths of the sweep, ascending.
      labels: Labels of each strength; None where no label has more than half of the seeds.
      agreement: Share of the seeds that give each strength its most frequent label.
      weak_until: For each seed, the last strength that is weak; NaN where none is.
      excessive_from: For each seed, the first strength that is excessive; NaN where none is.
      absent: Why a regime has no strength, by its label.
    """

    strengths: tuple[float, ...]
    labels: tuple[Label | None, ...]
    agreement: np.ndarray
    weak_until: np.ndarray
    excessive_from: np.ndarray
    absent: dict[Label, str]

    def span(self, label: Label) -> tuple[float, float] | None:
        """First and last strength of a regime; None where it is absent."""
        members = [strength for strength, found in zip(self.strengths, self.labels, strict=True) if found == label]
        return (members[0], members[-1]) if members else None


class Peak(NamedTuple):
    """Where a measure is largest over a sweep, see ``peak``.

    Attributes:
      strength: Strength at which the median over seeds is largest; the smallest such strength.
      is_inner: Whether that is neither the weakest nor the strongest.
      rise: For each seed, the value there less that at the weakest strength.
      fall: For each seed, the value there less that at the strongest.
    """

    strength: float
    is_inner: bool
    rise: np.ndarray
    fall: np.ndarray


def read(
    strengths: Any,
    accuracy: Any,
    on: Any,
    off: Any,
    *,
    tolerance: float = 0.02,
    ratio: float = 1.0,
    chance: float | None = None,
) -> Regimes:
    """Labels every strength of a sweep by the rules of the module.

    Args:
      strengths: Ascending, ``(k,)``.
      accuracy: Shares in [0, 1], ``(k, seeds)``; NaN here or below means that this model is missing.
      on: On-manifold deviations, at least 0, ``(k, seeds)``.
      off: Off-manifold deviations, at least 0, ``(k, seeds)``.
      tolerance: How far accuracy may lie below the seed's best, and how far that best must lie above ``chance``.
      ratio: Ratio of off- to on-manifold deviation, below which a model can be aligned; may be infinite.
      chance: Accuracy of guessing, one over the number of classes; None: nothing is asked of the best.

    Returns:
      Labels and how far the seeds agree.

    Raises:
      ValueError: Strengths that do not ascend, shapes that do not fit, values out of range, a seed without a model, or
        a tolerance, ratio or chance that cannot be used.

    >>> found = read([0.1, 1, 10, 100], *np.array([[0.9, 0.9, 0.89, 0.6], [5, 4, 3, 1], [6, 4.5, 1, 0.5]])[..., None])
    >>> found.labels
    ('weak', 'weak', 'aligned', 'excessive')
    >>> found.span("weak"), found.absent
    ((0.1, 1.0), {})
    """
    strengths, (accuracy, on, off) = _checked(strengths, accuracy=accuracy, on=on, off=off)
    if not 0 <= tolerance < 1 or not ratio > 0:
        raise ValueError(f"expected `tolerance` in [0, 1) and `ratio` above 0, got {tolerance} and {ratio}")
    if chance is not None and not 0 <= chance < 1:
        raise ValueError(f"expected `chance` in [0, 1), one over the number of classes, got {chance}")
    if (accuracy > 1).any() or any((values < 0).any() for values in (accuracy, on, off)):
        raise ValueError("expected `accuracy` in [0, 1], and deviations of at least 0")
    known = np.isfinite(accuracy + on + off)
    if not known.any(axis=0).all():
        raise ValueError(f"seed {int(np.argmin(known.any(axis=0)))} of the sweep has no model; leave it out")
    places = np.full(known.shape, -1)
    learned = np.max(accuracy, axis=0, where=known, initial=0) > (-1 if chance is None else chance + tolerance)
    for seed in np.flatnonzero(learned):
        rows = known[:, seed]
        curves = (values[rows, seed] for values in (accuracy, on, off))
        places[rows, seed] = _places(*curves, tolerance=tolerance, ratio=ratio)
    counts = np.stack([(places == place).sum(axis=1) for place in range(len(LABELS))], axis=1)
    most = counts.max(axis=1)
    seeds = known.shape[1]
    labels = tuple(LABELS[place] if 2 * most[k] > seeds else None for k, place in enumerate(counts.argmax(axis=1)))
    column = strengths[:, None]
    return Regimes(
        strengths=tuple(strengths.tolist()),
        labels=labels,
        agreement=most / seeds,
        weak_until=_or_nan(np.where(places == 0, column, -np.inf).max(axis=0)),
        excessive_from=_or_nan(np.where(places == 2, column, np.inf).min(axis=0)),
        absent={label: _reason(label, places, learned) for label in LABELS if label not in labels},
    )


def read_shares(
    strengths: Any, accuracy: Any, share: Any, *, tolerance: float = 0.02, chance: float | None = None
) -> Regimes:
    """Labels every strength of a sweep by the gradient's energy; aligned models have less of it off the manifold than
    on it.

    Args:
      strengths: Ascending, ``(k,)``.
      accuracy: Shares in [0, 1], ``(k, seeds)``.
      share: Share of the gradient's squared length off the manifold (``robustness.off_manifold_share``), ``(k,
        seeds)``.
      tolerance: As for ``read``.
      chance: As for ``read``.

    Returns:
      As ``read``.

    Raises:
      ValueError: As ``read``; shares above 1.

    >>> read_shares([0, 1, 10], *np.array([[0.9, 0.9, 0.5], [0.97, 0.3, 0.1]])[..., None]).labels
    ('weak', 'aligned', 'excessive')
    """
    share = np.asarray(share, float)
    if (share > 1).any():
        raise ValueError(f"expected shares in [0, 1], got {np.nanmax(share)}")
    return read(strengths, accuracy, 1 - share, share, tolerance=tolerance, chance=chance)


def isotropic_share(rank: Any, size: Any) -> Any:
    """The mean off-manifold share of a gradient without direction: ``1 - rank / size``.

    Args:
      rank: Dimensions of the tangent space.
      size: Values of an image; a mean of them, where each has a mask of its own.

    Returns:
      Shaped as ``rank``.

    Raises:
      ValueError: A rank below 0 or above ``size``.

    >>> isotropic_share(96, 3072)
    0.96875
    """
    _check_rank(rank, size)
    return 1 - rank / size


def unit_step_ratio(share: Any, rank: Any, size: Any) -> Any:
    """The ratio ``off / on`` that steps of one length give for a share, to first order and as root mean squares.

    A random unit vector in ``k`` directions has the mean square ``|P g|^2 / k`` along ``g``.

    Args:
      share: Share of the squared length off the manifold, in [0, 1].
      rank: Dimensions of the tangent space.
      size: Values of an image; a mean of them, where each has a mask of its own.

    Returns:
      ``sqrt(share / (1 - share) rank / (size - rank))``; infinite for a share of 1.

    Raises:
      ValueError: A share outside of [0, 1], or a rank that is not between 0 and ``size``: one side has no direction.

    >>> round(float(unit_step_ratio(0.5, 128, 3072)), 3), round(float(unit_step_ratio(1 - 128 / 3072, 128, 3072)), 3)
    (0.209, 1.0)
    """
    _check_rank(rank, size)
    if np.any(np.asarray(rank) == 0) or np.any(np.asarray(rank) == size):
        raise ValueError(f"steps need directions on and off the manifold, got the rank {rank} of {size}")
    if np.any(np.asarray(share) < 0) or np.any(np.asarray(share) > 1):
        raise ValueError(f"expected shares in [0, 1], got {share}")
    with np.errstate(divide="ignore"):
        return np.sqrt(np.divide(share, np.subtract(1, share)) * rank / (size - rank))


def peak(strengths: Any, values: Any) -> Peak:
    """Finds where a measure, such as the alignment with a score, is largest, and how clearly.

    Args:
      strengths: Ascending, ``(k,)``.
      values: Values of the measure, ``(k, seeds)``; NaN where a model is missing.

    Returns:
      The peak of the median over seeds; rises and falls are of the same seed's models, NaN where one is missing.

    Raises:
      ValueError: Strengths that do not ascend, a strength without a value, or shapes that do not fit.

    >>> peak([0, 1, 2], [[0.1, 0.2], [0.5, 0.4], [0.3, 0.1]])
    Peak(strength=1.0, is_inner=True, rise=array([0.4, 0.2]), fall=array([0.2, 0.3]))
    """
    strengths, (values,) = _checked(strengths, values=values)
    missing = np.isnan(values).all(axis=1)
    if missing.any():
        raise ValueError(f"no seed has a value at the strength {strengths[missing][0]:g}; leave it out")
    top = int(np.nanmedian(values, axis=1).argmax())
    return Peak(float(strengths[top]), 0 < top < len(strengths) - 1, values[top] - values[0], values[top] - values[-1])


def _places(accuracy: np.ndarray, on: np.ndarray, off: np.ndarray, *, tolerance: float, ratio: float) -> np.ndarray:
    """Places of the labels in ``LABELS``, for the curves of one seed."""
    accurate = accuracy >= accuracy.max() - tolerance
    end = np.flatnonzero(accurate)[-1] + 1
    reach = np.multiply(on, ratio, where=on > 0, out=np.zeros_like(on))
    breaks = np.flatnonzero(~(accurate & (off < reach))[:end])
    start = breaks[-1] + 1 if breaks.size else 0
    index = np.arange(len(accuracy))
    return (index >= start).astype(int) + (index >= end)


def _reason(label: Label, places: np.ndarray, learned: np.ndarray) -> str:
    seeds, showing = places.shape[1], int((places == LABELS.index(label)).any(axis=0).sum())
    if showing == seeds:
        return "all seeds show it, but most of them at no common strength"
    reason = f"{showing} of {seeds} seeds show it"
    idle = seeds - int(learned.sum())
    if idle:
        reason += f"; for {idle} no strength's accuracy is above chance"
    return reason if showing + idle == seeds else f"{reason}; for the others {_ABSENCE[label]}"


def _checked(strengths: Any, **curves: Any) -> tuple[np.ndarray, list[np.ndarray]]:
    strengths = np.asarray(strengths, float)
    if strengths.ndim != 1 or not strengths.size or not np.isfinite(strengths).all() or (np.diff(strengths) <= 0).any():
        raise ValueError(f"`strengths` must be finite and ascend, got {strengths.tolist()}")
    arrays = {name: np.asarray(values, float) for name, values in curves.items()}
    first = next(iter(arrays.values())).shape
    for name, values in arrays.items():
        if values.ndim != 2 or values.shape != first or len(values) != len(strengths) or not values.size:
            raise ValueError(f"`{name}` must be ({len(strengths)} strengths, seeds), got the shape {values.shape}")
        if np.isinf(values).any():
            raise ValueError(f"`{name}` holds infinite values; mark a missing model by NaN")
    return strengths, list(arrays.values())


def _check_rank(rank: Any, size: Any) -> None:
    if np.any(np.asarray(rank) < 0) or np.any(np.asarray(rank) > size):
        raise ValueError(f"expected a rank from 0 to {size}, the values of an image, got {rank}")


def _or_nan(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.nan)
