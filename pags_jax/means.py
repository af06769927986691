"""Means of measures over images, with their errors, as columns of rows; and means over rows of several batches."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from pags_jax.images import wide


def mean_and_error(name: str, values: Any, valid: Any) -> dict[str, float | None]:
    """Mean and standard error of a measure over the images that have it, as two columns; None where none has it.

    Args:
      name: Name of the first column; the second is ``NAME_error``.
      values: ``(n,)``, of the images.
      valid: ``(n,)`` booleans, which images have it.

    >>> mean_and_error("on", [1.0, 3.0, np.nan], [True, True, False])["on"]
    2.0
    """
    chosen = np.asarray(values)[np.asarray(valid)]
    if jnp.issubdtype(chosen.dtype, jnp.floating):
        chosen = chosen.astype(wide(chosen.dtype))
    if not chosen.size:
        return {name: None, f"{name}_error": None}
    return {name: float(chosen.mean()), f"{name}_error": float(chosen.std() / np.sqrt(chosen.size))}


def means_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with means in place of arrays, over the images of which all are finite; ``invalid`` counts the others.

    Args:
      row: Columns, of which some are NumPy arrays ``(n,)`` of the same images.
    """
    arrays = {name: value for name, value in row.items() if isinstance(value, np.ndarray)}
    if not arrays:
        return dict(row)
    valid = np.all([np.isfinite(values) for values in arrays.values()], axis=0)
    means = {key: value for name in arrays for key, value in mean_and_error(name, arrays[name], valid).items()}
    return {name: value for name, value in row.items() if name not in arrays} | means | {"invalid": int((~valid).sum())}


def pooled(rows: Iterable[Mapping[str, Any]], measures: Iterable[str]) -> dict[str, Any]:
    """Means over the images of several rows: each row counts as often as it has images with every measure.

    Args:
      rows: Rows such as those of ``means_of``, of batches: with ``images`` in all, ``invalid`` ones among them, and
        means, None where a batch has none.
      measures: Columns of means.

    Returns:
      The number of ``images`` with every measure, and each mean over them; None where no row has it.

    >>> pooled([{"images": 2, "invalid": 0, "on": 1.0}, {"images": 3, "invalid": 2, "on": 4.0}], ["on"])
    {'images': 3, 'on': 2.0}
    """
    counted = [(row, row["images"] - row["invalid"]) for row in rows]
    found: dict[str, Any] = {"images": sum(count for _, count in counted)}
    for measure in measures:
        known = [(row[measure], count) for row, count in counted if row[measure] is not None]
        total = sum(count for _, count in known)
        found[measure] = sum(value * count for value, count in known) / total if total else None
    return found
