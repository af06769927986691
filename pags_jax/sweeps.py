"""A table of trained models as curves, regimes and correlations.

A row is a mapping of one measured model: ``loss``, ``strength`` and ``seed`` say which it is, and other columns are
measures of it, None where there is no value. A row of deviations says the length of the steps in ``eps_l2``, a row of
alignments the gradient in ``target`` and the noise level of the score in ``sigma_pm1``. A model of the loss
``BASELINE`` has no strength, and begins every other loss's sweep.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pags_jax import recipes, regimes, statistics

Row = dict[str, Any]
#: The loss without a strength, and the one whose strength is a noise level.
BASELINE, SMOOTHED = "cross_entropy", "randomized_smoothing"
#: Accuracies on held-out images, as they are and under attack.
HELD_OUT = ("validation_accuracy", "validation_attacked")
#: All models of a table, and those of them that are about as accurate as the best; see ``correlations``.
ALL, ACCURATE = "all", "accurate"


def swept(table: Iterable[Row]) -> list[str]:
    """The losses that have strengths, in the order of ``recipes.RECIPES``."""
    present = {row["loss"] for row in table}
    return [name for name in recipes.RECIPES if name in present and name != BASELINE]


def noise_levels(table: Iterable[Row]) -> list[float]:
    """The standard deviations of the noise under which models were trained (``SMOOTHED``), for images in [0, 1].

    >>> noise_levels([{"loss": "randomized_smoothing", "strength": s} for s in (0.5, 0.25, 0.5)])
    [0.25, 0.5]
    """
    return sorted({row["strength"] for row in table if row["loss"] == SMOOTHED and row["strength"] > 0})


def nearest(table: Iterable[Row], column: str, value: float) -> list[Row]:
    """The rows whose value in a column is nearest, by ratio, to ``value``; no rows of an empty table.

    >>> nearest([{"eps_l2": 0.5}, {"eps_l2": 2.0}, {"eps_l2": 2.0}], "eps_l2", 1.1)
    [{'eps_l2': 2.0}, {'eps_l2': 2.0}]
    """
    table = list(table)
    found = min({row[column] for row in table}, key=lambda other: abs(np.log(other / value)), default=None)
    return [row for row in table if row[column] == found]


def curves(table: Sequence[Row], loss: str, *columns: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """Strengths of a loss, ascending, and each column as ``(strengths, seeds)``, NaN where a model is missing.

    The undefended model is that of strength 0, unless the loss has one of its own, or no model with these columns.

    >>> models = (("smoothness", 10.0), ("smoothness", 1.0), ("cross_entropy", 0.0))
    >>> table = [{"loss": loss, "strength": s, "seed": 0, "on": s + 1} for loss, s in models]
    >>> strengths, (on,) = curves(table, "smoothness", "on")
    >>> strengths.tolist(), on.tolist()
    ([0.0, 1.0, 10.0], [[1.0], [2.0], [11.0]])
    """
    part = [row for row in table if row["loss"] == loss]
    has_any = any(all(row[column] is not None for column in columns) for row in part)
    if has_any and all(row["strength"] for row in part):
        part = [row | {"strength": 0.0} for row in table if row["loss"] == BASELINE] + part
    strengths, seeds = (sorted({row[name] for row in part}) for name in ("strength", "seed"))
    arrays = [np.full((len(strengths), len(seeds)), np.nan) for _ in columns]
    for row in part:
        for array, column in zip(arrays, columns, strict=True):
            value = np.nan if row[column] is None else row[column]
            array[strengths.index(row["strength"]), seeds.index(row["seed"])] = value
    return np.array(strengths), arrays


def best(table: Iterable[Row], columns: Sequence[str] = HELD_OUT) -> list[Row]:
    """The rows, over seeds, of each loss's strength with the largest mean accuracy.

    Args:
      table: Rows of trained models.
      columns: Accuracies on held-out images, numbers or lists of them (one for each radius of an attack), all of which
        the mean is over. Choose by other images than those that are then measured.

    >>> rows = [{"loss": "adversarial", "strength": s, "validation": v} for s, v in ((0.5, [0.9, 0.3]), (1.0, 0.7))]
    >>> [row["strength"] for row in best(rows, ["validation"])]
    [1.0]
    """
    table = list(table)
    accuracies: dict[tuple[str, float], list[float]] = {}
    for row in table:
        values = np.concatenate([np.atleast_1d(np.asarray(row[column], float)) for column in columns])
        accuracies.setdefault((row["loss"], row["strength"]), []).append(float(values.mean()))
    chosen: dict[str, tuple[float, float]] = {}
    for (loss, strength), values in accuracies.items():
        if loss not in chosen or np.mean(values) > chosen[loss][0]:
            chosen[loss] = (float(np.mean(values)), strength)
    return [row for row in table if chosen[row["loss"]][1] == row["strength"]]


def most_robust(table: Iterable[Row], radius: int, *, accurate: float = 0.05) -> list[Row]:
    """The rows, of all seeds, of the loss and strength whose model is most robust to attack among the accurate ones.

    Args:
      table: Rows of trained models; means over seeds of known accuracies on held-out images (``HELD_OUT``) choose.
      radius: Which radius of the attack, counted from 0.
      accurate: How far below the best accuracy an accurate model may lie.

    >>> names = ("loss", "strength", "seed", *HELD_OUT)
    >>> models = (("cross_entropy", 0.0, 0, 0.9, [0.0]), ("smoothness", 1.0, 0, 0.88, [0.3]))
    >>> [row["strength"] for row in most_robust([dict(zip(names, model)) for model in models], 0)]
    [1.0]
    """
    found: dict[tuple[Any, ...], list[tuple[float, float]]] = {}
    for row in (table := [row for row in table if _is_known(row, HELD_OUT)]):
        found.setdefault(_model(row)[:2], []).append((row[HELD_OUT[0]], row[HELD_OUT[1]][radius]))
    means = [(*np.mean(both, axis=0), model) for model, both in found.items()]
    lowest = max((plain for plain, *_ in means), default=0.0) - accurate
    _, chosen = max(((hit, model) for plain, hit, model in means if plain >= lowest), default=(0.0, None))
    return [row for row in table if _model(row)[:2] == chosen]


def regimes_of(table: Sequence[Row], loss: str, *, eps: float, tolerance: float = 0.02) -> regimes.Regimes | None:
    """The regimes of one loss by unit steps (``regimes.read``); None where none of its models could be measured.

    Seeds without a measured model are left out. Where rows say how many ``classes`` there are, a sweep at chance
    accuracy has no regimes.

    Args:
      table: Rows with ``test_accuracy``, ``on``, ``off`` and ``eps_l2``.
      loss: Loss whose regimes are read.
      eps: Length of the steps, the nearest that was measured.
      tolerance: As for ``regimes.read``.
    """
    columns = ("test_accuracy", "on", "off")
    return _read(regimes.read, nearest(table, "eps_l2", eps), loss, columns, tolerance)


def share_regimes_of(
    table: Sequence[Row], loss: str, *, target: str, tolerance: float = 0.02
) -> regimes.Regimes | None:
    """The regimes of one loss by the share of a gradient's energy (``regimes.read_shares``); else as ``regimes_of``.

    Args:
      table: Rows with ``test_accuracy``, ``off_share``, ``target`` and ``sigma_pm1``.
      loss: Loss whose regimes are read.
      target: Which gradient.
      tolerance: As for ``regimes.read``.
    """
    part = sorted((row for row in table if row["target"] == target), key=lambda row: -row["sigma_pm1"])
    # The share is the same at all noise levels, of which some models have more than others.
    once = {tuple(row.get(name) for name in ("loss", "strength", "seed")): row for row in part}
    return _read(regimes.read_shares, list(once.values()), loss, ("test_accuracy", "off_share"), tolerance)


def _read(
    read: Callable[..., regimes.Regimes], part: Sequence[Row], loss: str, columns: Sequence[str], tolerance: float
) -> regimes.Regimes | None:
    strengths, measured = curves(part, loss, *columns)
    known = np.isfinite(np.sum(measured, axis=0)).any(axis=0)
    if not known.any():
        return None
    classes = part[0].get("classes")
    chance = None if classes is None else 1 / classes
    return read(strengths, *(values[:, known] for values in measured), tolerance=tolerance, chance=chance)


def join(robust: Iterable[Row], aligned: Iterable[Row], *, eps_l2: float, target: str, sigma_pm1: float) -> list[Row]:
    """One row for each model in both tables: its deviations at one length, and its alignment at one place.

    Args:
      robust: Rows with ``on`` and ``off``.
      aligned: Rows of alignments.
      eps_l2: Length of the steps, the nearest that was measured.
      target: Gradient that is compared with its score.
      sigma_pm1: Noise level of the score, the nearest that was measured.

    Returns:
      The rows of ``aligned`` there, with ``eps_l2``, ``on``, ``off`` and ``ratio``, which is off over on.
    """
    deviations = {_model(row): row for row in nearest(robust, "eps_l2", eps_l2)}
    joined = []
    for row in nearest([row for row in aligned if row["target"] == target], "sigma_pm1", sigma_pm1):
        known = deviations.get(_model(row))
        if known is not None:
            on, off = known["on"], known["off"]
            ratio = off / on if on and off is not None else None
            joined.append({**row, "eps_l2": known["eps_l2"], "on": on, "off": off, "ratio": ratio})
    return joined


def values_of(
    table: Iterable[Row], arrays: Callable[[Any], Mapping[str, np.ndarray]], column: str, **place: Any
) -> dict[tuple[str, float], np.ndarray]:
    """The values of all images at one place, by loss and strength, means over seeds; NaN where any model has none.

    Args:
      table: Rows, of which those of one model have the same ``unit`` and follow each other.
      arrays: ``arrays(unit)[column]`` has the values of the images for each row of the unit, in their order.
      column: Which measure.
      **place: Columns and their values; rows with others are left out.

    >>> table = [{"unit": "a", "loss": "smoothness", "strength": 1.0, "sigma_pm1": sigma} for sigma in (0.5, 1.0)]
    >>> values_of(table, lambda unit: {"on": np.array([[1.0, 2.0], [3.0, 4.0]])}, "on", sigma_pm1=1.0)
    {('smoothness', 1.0): array([3., 4.])}
    """
    found: dict[tuple[str, float], list[np.ndarray]] = {}
    for unit, part in itertools.groupby(table, key=lambda row: row["unit"]):
        for row, values in zip(part, arrays(unit)[column], strict=True):
            if all(row[name] == value for name, value in place.items()):
                found.setdefault((row["loss"], row["strength"]), []).append(values.astype(np.float64))
    whole = np.all([np.isfinite(values) for group in found.values() for values in group], axis=0)
    return {key: np.where(whole, np.mean(group, axis=0), np.nan) for key, group in found.items()}


def _model(row: Row) -> tuple[Any, ...]:
    return row["loss"], row["strength"], row["seed"]


def correlations(
    models: Sequence[Row],
    *,
    measures: Iterable[str],
    alignments: Iterable[str],
    key: jax.Array,
    accurate: float = 0.05,
    given: str = "on",
    permutations: int = 9999,
) -> list[Row]:
    """Spearman's correlations of each alignment with each measure: over all models, the accurate ones, each loss's.

    Args:
      models: Rows with ``test_accuracy``, such as those of ``join``.
      measures: Columns that may explain alignment.
      alignments: Columns of alignments.
      key: PRNG key of the permutations; every correlation is tested by the same ones.
      accurate: How far below the best test accuracy an accurate model may lie: the paper itself expects gradients of
        models that have lost theirs to be aligned with nothing.
      given: The measure that partial correlations take out of both sides.
      permutations: How many random ones.

    Returns:
      Rows with ``models`` (``ALL``, ``ACCURATE`` or a loss), ``alignment``, ``measure``, the number ``n`` of models,
      ``rho`` and ``p``, permuted within losses; of several losses also ``rho_given`` and ``p_given``. None where
      there is none.
    """
    best_accuracy = max((row["test_accuracy"] for row in models if row["test_accuracy"] is not None), default=0.0)
    limit = best_accuracy - accurate
    groups = {ALL: list(models), ACCURATE: [row for row in models if (row["test_accuracy"] or 0) >= limit]}
    groups |= {loss: [row for row in models if row["loss"] == loss] for loss in swept(models)}
    measured = partial(correlation, key=key, permutations=permutations)
    table = []
    for (group, part), alignment, measure in itertools.product(groups.items(), alignments, list(measures)):
        row: Row = {"models": group, "alignment": alignment, "measure": measure}
        row |= dict(zip(("n", "rho", "p"), measured(part, measure, alignment), strict=True))
        if group in (ALL, ACCURATE):
            partial_one = (None, None) if measure == given else measured(part, measure, alignment, given=given)[1:]
            row |= dict(zip(("rho_given", "p_given"), partial_one, strict=True))
        table.append(row)
    return table


def correlation(
    models: Iterable[Row], x: str, y: str, *, key: jax.Array, given: str | None = None, permutations: int = 9999
) -> tuple[int, float | None, float | None]:
    """How many models have these columns, their rank correlation, and its p-value from permutations within losses.

    Correlation and p-value are None for fewer than three models, or where one side has a single value; see
    ``statistics.rank_correlation``.

    >>> rows = [{"loss": "smoothness", "on": k, "cosine": -(k**2)} for k in range(5)]
    >>> n, rho, p = correlation(rows, "on", "cosine", key=jax.random.key(0))
    >>> n, round(rho, 5), p < 0.05
    (5, -1.0, True)
    """
    columns = [name for name in (x, y, given) if name is not None]
    rows = [row for row in models if _is_known(row, columns)]
    if len(rows) < 3:
        return len(rows), None, None
    arrays = [jnp.asarray([row[name] for row in rows], jnp.float32) for name in columns]
    losses = sorted({row["loss"] for row in rows})
    groups = jnp.asarray([losses.index(row["loss"]) for row in rows], jnp.int32)
    nothing = jnp.zeros_like(arrays[0])  # A constant takes nothing out, and compiles nothing more.
    beside = arrays[2] if given else nothing
    found = _rank_correlation(permutations)(arrays[0], arrays[1], key=key, groups=groups, given=beside)
    rho, p = float(found.rho), float(found.p)
    return (len(rows), None, None) if np.isnan(rho) else (len(rows), rho, p)


def _is_known(row: Mapping[str, Any], columns: Sequence[str]) -> bool:
    values = [row[name] for name in columns]
    return None not in values and bool(np.isfinite(np.hstack(values).astype(float)).all())


@functools.cache
def _rank_correlation(permutations: int) -> Callable[..., statistics.Correlation]:
    return jax.jit(partial(statistics.rank_correlation, permutations=permutations))
