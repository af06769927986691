"""The six questions that `benchmarks/README.md` of this project fixes beforehand about a sweep, answered from its rows.

Rows are those of `sweeps`; ``values(column, **place)`` gives the values of all images by loss and strength, means over
seeds, NaN where any model has none, so that intervals are over images. Each answer is a row: ``question``, ``loss`` (or
``ALL``), ``estimate``, its interval (``low``, ``high``) or p-value (``p``), the number to compare it with (``beside``),
details (``detail``) and the ``verdict``: shown, partly or not.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pags_jax import regimes, statistics, sweeps
from pags_jax.sweeps import ACCURATE, BASELINE, SMOOTHED, Row

ALL = "all"
SHOWN, PARTLY, NOT_SHOWN = "shown", "partly", "not shown"
Values = Mapping[tuple[str, float], np.ndarray]


class Place(NamedTuple):
    """Where a sweep is looked at.

    Attributes:
      eps: Length of the steps on and off the manifold, the nearest that was measured.
      target: Gradient that is compared with its score.
      sigma_pm1: Noise level of the score, the nearest that was measured.
      tolerance: How far below a sweep's best accuracy a model may lie before its strength is called excessive.
    """

    eps: float = 2.637
    target: str = "logit"
    sigma_pm1: float = 0.5
    tolerance: float = 0.02

    def robust(self, table: Sequence[Row]) -> list[Row]:
        """The rows of deviations at the length."""
        return sweeps.nearest(table, "eps_l2", self.eps)

    def aligned(self, table: Sequence[Row]) -> list[Row]:
        """The rows of alignments of the gradient at the noise level."""
        mine = [row for row in table if row["target"] == self.target]
        return sweeps.nearest(mine, "sigma_pm1", self.sigma_pm1)

    def join(self, robust: Sequence[Row], aligned: Sequence[Row]) -> list[Row]:
        """See ``sweeps.join``."""
        return sweeps.join(robust, aligned, eps_l2=self.eps, target=self.target, sigma_pm1=self.sigma_pm1)

    def by_steps(self, robust: Sequence[Row], loss: str) -> regimes.Regimes | None:
        """The regimes of a loss by unit steps, see ``sweeps.regimes_of``."""
        return sweeps.regimes_of(robust, loss, eps=self.eps, tolerance=self.tolerance)

    def by_energy(self, aligned: Sequence[Row], loss: str) -> regimes.Regimes | None:
        """The regimes of a loss by energy, see ``sweeps.share_regimes_of``."""
        return sweeps.share_regimes_of(aligned, loss, target=self.target, tolerance=self.tolerance)


def answers(
    robust: Sequence[Row], aligned: Sequence[Row], values: Callable[..., Values], place: Place, *, key: jax.Array
) -> list[Row]:
    """The answers to all questions, a row for each and one for each loss or model that it asks about.

    Args:
      robust: Rows of deviations.
      aligned: Rows of alignments, with ``rank`` and ``size`` of the tangent spaces, of the same models.
      values: Values of all images, see the module.
      place: Where to look.
      key: Draws the bootstrap's images.
    """
    at = place.aligned(aligned)
    here = {"target": place.target, "sigma_pm1": at[0]["sigma_pm1"]}
    keys, similarity = jax.random.split(key, 2), values("similarity", **here)
    return [
        undefended(values("off_share", **here), at[0], key=keys[0]),
        *by_loss(at, 2, partial(three_regimes, place, aligned)),
        *by_loss(at, 3, partial(rise_and_fall, similarity, key=keys[1])),
        explained(place, robust, aligned),
        *by_loss(at, 5, partial(peak_before_fall, place, aligned, similarity)),
        *own_noise(values, aligned),
    ]


def sweep_of(values: Values, loss: str) -> tuple[np.ndarray, np.ndarray]:
    """Strengths of a loss, 0 first, and values ``(images, strengths)``."""
    mine = {strength: column for (name, strength), column in values.items() if name in (loss, BASELINE)}
    strengths = sorted(mine)
    return np.array(strengths), np.stack([mine[strength] for strength in strengths], axis=1)


def by_loss(table: Sequence[Row], question: int, ask: Callable[[str], Row]) -> list[Row]:
    """A question's row for each loss, and the one for all: shown where three losses show it, partly where one does."""
    found = [{"question": question, "loss": loss} | ask(loss) for loss in sweeps.swept(table)]
    count = sum(row["verdict"] == SHOWN for row in found)
    verdict = SHOWN if count >= 3 else PARTLY if count else NOT_SHOWN
    return [{"question": question, "loss": ALL, "estimate": count, "verdict": verdict}, *found]


def undefended(shares: Values, row: Row, *, key: jax.Array) -> Row:
    """Question 1: the undefended model's share against that of a gradient without direction."""
    interval = statistics.mean_interval(jnp.asarray(shares[BASELINE, 0.0], jnp.float32), key=key)
    isotropic = float(regimes.isotropic_share(row["rank"], row["size"]))
    estimate, low, high = (float(value) for value in interval)
    verdict = SHOWN if high >= isotropic else PARTLY if low > 0.5 else NOT_SHOWN
    found = {"question": 1, "loss": ALL, "estimate": estimate, "low": low, "high": high}
    return found | {"beside": isotropic, "verdict": verdict}


def three_regimes(place: Place, aligned: Sequence[Row], loss: str) -> Row:
    """Question 2: how many of the three regimes a sweep has, by energy."""
    found = place.by_energy(aligned, loss)
    spans = {label: found.span(label) if found else None for label in regimes.LABELS}
    count = sum(span is not None for span in spans.values())
    detail = "; ".join(f"{label} {span[0]:g} to {span[1]:g}" for label, span in spans.items() if span is not None)
    verdict = SHOWN if count == 3 else PARTLY if count == 2 else NOT_SHOWN
    return {"estimate": count, "detail": detail, "verdict": verdict}


def rise_and_fall(similarity: Values, loss: str, *, key: jax.Array) -> Row:
    """Question 3: the rise to the peak, and as ``beside`` the fall from it, on images that did not choose the peak."""
    strengths, values = sweep_of(similarity, loss)
    peak = statistics.rise_and_fall(jnp.asarray(values, jnp.float32), key=key)
    rise, fall = ([float(value) for value in part] for part in (peak.rise, peak.fall))
    verdict = (SHOWN if fall[1] > 0 else PARTLY) if rise[1] > 0 else NOT_SHOWN
    detail = f"peak at {strengths[int(peak.place)]:g}; fall {fall[0]:.4f} ({fall[1]:.4f} to {fall[2]:.4f})"
    row = dict(zip(("estimate", "low", "high"), rise, strict=True))
    return row | {"beside": fall[0], "detail": detail, "verdict": verdict}


def explained(place: Place, robust: Sequence[Row], aligned: Sequence[Row]) -> Row:
    """Question 4: the correlation with the off-manifold deviation, as ``beside`` that given the on-manifold one."""
    models = place.join(robust, aligned)
    table = sweeps.correlations(models, measures=["off"], alignments=["similarity"], key=jax.random.key(0))
    (row,) = (row for row in table if row["models"] == ACCURATE)
    verdict = (NOT_SHOWN, PARTLY, SHOWN)[sum(explains(row))]
    detail = f"{row['n']} models; given on: {with_p(row['rho_given'], row['p_given'])}"
    found = {"question": 4, "loss": ALL, "estimate": row["rho"], "p": row["p"], "beside": row["rho_given"]}
    return found | {"detail": detail, "verdict": verdict}


def explains(row: Row) -> tuple[bool, bool]:
    """Whether alignment falls as a measure grows, at p < 0.05; and whether it does so given the on-manifold one, too.

    Args:
      row: Correlation of ``sweeps.correlations``.

    >>> explains({"rho": -0.8, "p": 0.01, "rho_given": None, "p_given": None})
    (True, False)
    """
    alone, given = (
        row.get(rho) is not None and row[rho] < 0 and row[p] < 0.05
        for rho, p in (("rho", "p"), ("rho_given", "p_given"))
    )
    return alone, alone and given


def peak_before_fall(place: Place, aligned: Sequence[Row], similarity: Values, loss: str) -> Row:
    """Question 5: the strength of the peak, and as ``beside`` the first excessive one, None if accuracy never falls.

    Args:
      place: Where in the grid of measures.
      aligned: Rows of the sweep's models.
      similarity: Values of the images by model.
      loss: Loss whose sweep is judged.
    """
    strengths, values = sweep_of(similarity, loss)
    means = np.nanmean(values, axis=0) if np.isfinite(values).any() else np.full(len(strengths), np.nan)
    found = place.by_energy(aligned, loss)
    if found is None or np.isnan(means).any():
        return {"estimate": None, "detail": "no usable map", "verdict": NOT_SHOWN}
    peak, span = float(strengths[means.argmax()]), found.span("excessive")
    falls = None if span is None else span[0]
    return {"estimate": peak, "beside": falls, "verdict": SHOWN if falls is None or peak < falls else NOT_SHOWN}


def own_noise(values: Callable[..., Values], aligned: Sequence[Row]) -> list[Row]:
    """Question 6: the noise level at which each smoothing model's gradient is most like Bayes', beside its own."""
    trained = sweeps.noise_levels(aligned)
    levels = [2 * strength for strength in trained]
    curves = [values("cosine", target="log_prob", sigma_pm1=level) for level in levels]
    found = []
    for strength in trained:
        means = [float(np.nanmean(curve[SMOOTHED, strength])) for curve in curves]
        best = levels[int(np.argmax(means))]
        detail = ", ".join(f"{level:g}: {mean:.4f}" for level, mean in zip(levels, means, strict=True))
        row = {"question": 6, "loss": SMOOTHED, "strength": strength, "estimate": best, "beside": 2 * strength}
        found.append(row | {"detail": detail, "verdict": SHOWN if best == 2 * strength else NOT_SHOWN})
    count = sum(row["verdict"] == SHOWN for row in found)
    verdict = SHOWN if count >= 3 else PARTLY if count == 2 else NOT_SHOWN
    return [{"question": 6, "loss": ALL, "estimate": count, "verdict": verdict}, *found]


#: What is written of a loss of which nothing could be measured.
NO_MODEL, NO_MAP = "no usable model", "no usable map"


def claims_of(loss: str, robust: Sequence[Row], aligned: Sequence[Row], place: Place) -> Row:
    """Whether a loss shows what the paper says of a sweep, with the numbers, by claim.

    Args:
      loss: Loss whose sweep is judged.
      robust: Rows of deviations at one length.
      aligned: Rows of alignments at one place.
      place: The length and the tolerance.
    """
    found, aligned = place.by_steps(robust, loss), learned(aligned, place.tolerance)
    accuracy, on = medians(robust, loss, "test_accuracy", "on")
    span = found.span("aligned") if found else None
    below = "no" if span is None else f"yes, from strength {span[0]:g} to {span[1]:g}"
    if span and span[0] == 0:  # Nothing falls below what it is below without any regularisation.
        below = "no, the undefended model has it already"
    top = int(accuracy.argmax()) if accuracy.size else 0
    return {
        "off falls below on while accurate": below if found else NO_MODEL,
        "cosine peaks inside": peaks(*medians(aligned, loss, "strength", "cosine")),
        "1 - LPIPS peaks inside": peaks(*medians(aligned, loss, "strength", "similarity")),
        "the strongest loses accuracy": falls(accuracy[top], accuracy[-1], place.tolerance) if found else NO_MODEL,
        "and on-manifold sensitivity": falls(on[top], on[-1], 0.0) if found else NO_MODEL,
    }


def learned(table: Sequence[Row], tolerance: float = 0.02) -> list[Row]:
    """The rows of models whose accuracy is above guessing by more than a tolerance; rows without an accuracy stay.

    >>> learned([{"test_accuracy": 0.1, "classes": 10}, {"test_accuracy": 0.7, "classes": 10}])
    [{'test_accuracy': 0.7, 'classes': 10}]
    """
    known = ((row, row.get("test_accuracy"), row.get("classes")) for row in table)
    return [row for row, right, of in known if right is None or of is None or right > 1 / of + tolerance]


def medians(table: Sequence[Row], loss: str, *columns: str) -> list[np.ndarray]:
    """Medians over seeds of columns, at the strengths that have a value of each."""
    _, values = sweeps.curves(table, loss, *columns)
    known = np.all([~np.isnan(column).all(axis=1) for column in values], axis=0)
    return [np.nanmedian(column[known], axis=1) for column in values]


def peaks(strengths: np.ndarray, values: np.ndarray) -> str:
    """Whether a curve is largest inside, and where, with its first, largest and last value."""
    if not values.size:
        return NO_MAP
    top = int(values.argmax())
    inside = f"yes, at {strengths[top]:g}" if 0 < top < len(values) - 1 else "no"
    return f"{inside} ({values[0]:.3f}, {values[top]:.3f}, {values[-1]:.3f})"


def falls(before: float, after: float, tolerance: float) -> str:
    """Whether a value falls by more than a tolerance, with both values."""
    return f"{'yes' if after < before - tolerance else 'no'} ({before:.3f} to {after:.3f})"


def peak_of(table: Sequence[Row], loss: str, measure: str) -> Row:
    """Where one measure of one loss is largest, beside the undefended model's; None where no image has it.

    Models that guess (`learned`) count nowhere: their gradients are noise, which may look like anything.
    """
    table = learned(table)
    base = [row[measure] for row in table if row["loss"] == BASELINE and row[measure] is not None]
    strengths, (values,) = sweeps.curves(table, loss, measure)
    known = ~np.isnan(values).all(axis=1)
    strengths, values = strengths[known], values[known]
    middle = np.nanmedian(values, axis=1) if values.size else np.full(1, np.nan)
    peak = regimes.peak(strengths, values) if values.size else None
    at = {"at the weakest": middle[0], "largest": middle.max(), "at the strongest": middle[-1]}
    at = {name: float(value) if peak else None for name, value in at.items()}
    return {
        "undefended": float(np.median(base)) if base else None,
        **at,
        "at strength": peak.strength if peak else None,
        "peaks inside": ("yes" if peak.is_inner else "no") if peak else "no usable map",
    }


def spans_of(found: regimes.Regimes | None) -> Row:
    """The strengths of each regime in words, or why it is absent, and the least agreement of the seeds.

    Args:
      found: The regimes of a loss, from ``sweeps.regimes_of`` or ``sweeps.share_regimes_of``.

    >>> spans_of(None)["weak"]
    'none: no usable model'
    """
    if found is None:
        return dict.fromkeys(regimes.LABELS, f"none: {NO_MODEL}") | {"agreement of seeds": None}
    words: Row = {}
    for label in regimes.LABELS:
        span = found.span(label)
        words[label] = f"none: {found.absent[label]}" if span is None else f"{span[0]:g} to {span[1]:g}"
    return words | {"agreement of seeds": float(found.agreement.min())}


def with_p(rho: float | None, p: float | None) -> str:
    """A correlation and its p-value for readers; "none" if there is none."""
    return "none" if rho is None else f"{rho:+.2f} (p = {p:.2g})"
