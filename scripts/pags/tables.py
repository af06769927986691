"""Rows of the scripts on gradients, as figures and reports need them: of one run, at one place, as curves."""

import csv
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pags_jax import recipes, regimes
from scripts.harness import store

Row = dict[str, Any]
#: The loss without a strength.
BASELINE = "cross_entropy"


def read(path: Path, flag: str, script: str) -> list[Row]:
    """The rows of a finished run folder, or of a published ``.csv.gz``, of one script.

    Args:
        path: The folder, or the file.
        flag: That named it, for errors.
        script: Whose rows they must be, such as "pags_robustness".

    Raises:
        ValueError: If there is no finished run, it is damaged, or its rows are of another script.
    """
    command = f"python -m scripts.{script.replace('_', '.', 1)}"
    try:
        table = published(path) if path.is_file() else store.read_rows(path)
    except FileNotFoundError as error:
        raise ValueError(f"{flag}: {error}; run {command} first") from None
    for row in table:
        found = row.get("config.experiment", "another kind of run").removeprefix("scripts.")  # As it was spelled once.
        if found != script:
            raise ValueError(f"{flag}: {path} holds rows of {found}, not of {script}")
    if not table:
        raise ValueError(f"{flag}: {path} holds no rows; run {command} again")
    return table


def published(path: Path) -> list[Row]:
    """The rows of a ``.csv.gz`` as `scripts.reproduce` publishes them; cells get the types that they look like.

    Raises:
        ValueError: If it is no such file.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            return [{name: _value(text) for name, text in row.items()} for row in csv.DictReader(file)]
    except (OSError, EOFError, ValueError, TypeError, csv.Error) as error:
        raise ValueError(f"{path} is no .csv.gz of rows, or is damaged ({error}); name a run folder instead") from error


def _value(text: str) -> Any:
    if text in ("", "True", "False"):
        return {"": None, "True": True, "False": False}[text]
    if text.startswith("["):
        return json.loads(text)
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def swept(table: Sequence[Row]) -> list[str]:
    """The losses that have strengths, in the order of the recipes."""
    present = {row["loss"] for row in table}
    return [name for name in recipes.RECIPES if name in present and name != BASELINE]


def nearest(table: Sequence[Row], column: str, value: float) -> list[Row]:
    """The rows whose value in a column is nearest, by ratio, to one; none of none."""
    found = min({row[column] for row in table}, key=lambda seen: abs(np.log(seen / value)), default=None)
    return [row for row in table if row[column] == found]


def curves(table: Sequence[Row], loss: str, *columns: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """Strengths of a loss, ascending, and each column as ``(strengths, seeds)``, NaN where a model is missing.

    The undefended model is that of strength 0, unless the loss has one of its own, or no model with these columns.
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


def regimes_of(table: Sequence[Row], loss: str, *, eps: float, tolerance: float) -> regimes.Regimes | None:
    """The regimes of one loss, from rows of `pags_robustness`; None where none of its models could be measured.

    Seeds without a measured model are left out. Rows say how many classes there are, so that a sweep at chance accuracy
    has no regimes; older ones do not, and nothing is asked of their accuracy.
    """
    columns = ("test_accuracy", "on", "off")
    return _read(regimes.read, nearest(table, "eps_l2", eps), loss, columns, tolerance)


def share_regimes_of(table: Sequence[Row], loss: str, *, target: str, tolerance: float) -> regimes.Regimes | None:
    """The regimes of one loss by the share of a gradient's energy, from rows of `pags_alignment`; else as above."""
    part = [row for row in table if row["target"] == target]
    level = min((row["sigma_pm1"] for row in part), default=None)  # The share is the same at all of them.
    part = [row for row in part if row["sigma_pm1"] == level]
    return _read(regimes.read_shares, part, loss, ("test_accuracy", "off_share"), tolerance)


def _read(read: Any, part: Sequence[Row], loss: str, columns: Sequence[str], tolerance: float) -> Any:
    strengths, measured = curves(part, loss, *columns)
    known = np.isfinite(np.sum(measured, axis=0)).any(axis=0)
    if not known.any():
        return None
    classes = part[0].get("classes")
    chance = None if classes is None else 1 / classes
    return read(strengths, *(values[:, known] for values in measured), tolerance=tolerance, chance=chance)
