"""A data set split into train and test rows, with all that is needed to read and undo its preparation."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Float, Float64, Int, Int64

from fmu_jax.arrays import as_numbers
from fmu_jax.data import Data, check_cells, check_values
from fmu_jax.datasets import table as tables
from fmu_jax.datasets.grouping import Groups
from fmu_jax.datasets.parts import WHOLE, Parts
from fmu_jax.datasets.reading import listed

BIAS = "bias"
"""The name of the constant feature, the last one."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Split:
    """Train and test rows of one data set, scaled, with a constant-1 bias column last.

    ``x = [(raw - center) / scale, 1]``. Center and scale come from the train rows alone: every train row has norm
    at most 1 before the bias column (so at most sqrt(2) with it), while a test row may exceed that.

    Attributes:
      train, test: The rows; `x` is ``(n, d)``, float64 under ``jax_enable_x64`` and float32 otherwise; weights are 1.
      feature_names: d names, the last one "bias".
      label_name, label_values: What is predicted, and what labels 0 and 1 mean.
      group_name, group_values: The protected attribute, such as "race" or "race x gender", and what each group means.
      center, scale: ``(d - 1,)`` float64, of the features without the bias.
      scaling: How center and scale were chosen, "standardise", "minmax" or "maxnorm".
      train_rows, test_rows: Each row's number (from 0) in the table it came from, int64.
      source: The data set's name, or the file.
      dropped_rows: Records of the table that were left out because a value was missing.
      dropped_columns: Features that were left out because they never vary.
    """

    train: Data = dataclasses.field(repr=False)
    test: Data = dataclasses.field(repr=False)
    feature_names: tuple[str, ...]
    label_name: str
    label_values: tuple[str, str]
    group_name: str
    group_values: tuple[str, ...]
    center: Float64[np.ndarray, " p"] = dataclasses.field(repr=False)
    scale: Float64[np.ndarray, " p"] = dataclasses.field(repr=False)
    scaling: str
    train_rows: Int64[np.ndarray, " n"] = dataclasses.field(repr=False)
    test_rows: Int64[np.ndarray, " m"] = dataclasses.field(repr=False)
    source: str
    dropped_rows: int = 0
    dropped_columns: tuple[str, ...] = ()

    def scaled(self, raw: Float[np.ndarray, "m p"]) -> Float[np.ndarray, "m d"]:
        """Prepares new raw rows as the train rows were: scale, then append the bias.

        Args:
          raw: ``(m, d - 1)``, columns as in ``feature_names[:-1]``.

        Returns:
          ``(m, d)``, the dtype of ``train.x``.

        Raises:
          ValueError: The number of columns is not ``d - 1``.
        """
        raw = np.asarray(as_numbers(raw, "raw"), np.float64)
        if raw.ndim != 2 or raw.shape[1] != len(self.center):
            raise ValueError(f"expected rows of the {len(self.center)} features without the bias, got {raw.shape}")
        return with_bias((raw - self.center) / self.scale, self.train.x.dtype)

    def summary(self) -> dict[str, int | float]:
        """Sizes, and over all rows the shares of label 1, of group 1 (of more: of each), and of label 1 by group."""
        y = np.concatenate([np.asarray(part.y) for part in (self.train, self.test)])
        group = np.concatenate([np.asarray(part.group) for part in (self.train, self.test)])
        shares = [float((group == g).mean()) for g in range(len(self.group_values))]
        named = {f"group{g}_share": share for g, share in enumerate(shares)}
        return {
            "train_rows": len(self.train_rows),
            "test_rows": len(self.test_rows),
            "features": len(self.feature_names),
            "positive_share": float(y.mean()),
            **(named if len(shares) > 2 else {"group_share": shares[1]}),
            **{f"positive_share_group{g}": float(y[group == g].mean()) for g in range(len(shares))},
        }


def float_dtype() -> np.dtype:
    """JAX's default float: float64 under ``jax_enable_x64``, float32 otherwise."""
    return np.dtype(jnp.result_type(float))


def rounding_margin() -> float:
    """Head room that keeps row norms at most 1 after rounding to the default float: 4 units of relative rounding."""
    return 4 * float(np.finfo(float_dtype()).eps)


def with_bias(x: Float[np.ndarray, "n p"], dtype) -> Float[np.ndarray, "n d"]:
    """Appends a column of ones."""
    out = np.ones((x.shape[0], x.shape[1] + 1), dtype)
    out[:, :-1] = x
    return out


def make_split(
    features: pd.DataFrame,
    y: Int[np.ndarray, " n"],
    groups: Groups,
    *,
    seed: int,
    test_fraction: float,
    scaling: str,
    source: str,
    impute: bool = False,
    rows: Int[np.ndarray, " n"] | None = None,
    parts: Parts = WHOLE,
    **described: Any,
) -> Split:
    """Splits, scales and appends the bias.

    Args:
      features: n rows of float64 columns; finite, or with `impute` possibly NaN.
      y: Labels 0 and 1, ``(n,)``.
      groups: Groups of ``grouping``, the group of each row.
      seed: Seed of the split.
      test_fraction: Share of test rows.
      scaling: "standardise", "minmax" or "maxnorm".
      source: The data set's name or file.
      impute: Replace NaN by the mean of the train rows.
      rows: Each row's number in the table it came from; None means 0..n-1.
      parts: The parts of the table, of which these rows are one; not with `impute`.
      **described: Further fields of ``Split`` (names, what was dropped).

    Returns:
      The ``Split``.

    Raises:
      ValueError: Two features have one name, no feature varies, a feature is not finite, or the train or test rows lack
        a group or a label, or, of more than two groups, a label in a group.
    """
    names = [*map(str, features.columns), BIAS]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"{source}: more than one feature would be named {listed(twice)} (a column by its name, category c of a "
            f"column as column=c, the constant 1 as {BIAS!r}); rename a column"
        )
    if len(names) == 1:
        raise ValueError(f"{source} has no feature: every column is the label, the group or left out")
    values = features.to_numpy(np.float64)
    low, high = parts.least(np.fmin.reduce(values)), parts.most(np.fmax.reduce(values))  # these skip NaN
    constant = ~(low < high)
    if constant.all():
        raise ValueError(f"{source} has no feature that varies; its features are {listed(features.columns)}")
    values, names = values[:, ~constant], [str(name) for name in features.columns[~constant]]
    indices = tables.split_rows(len(values), test_fraction=test_fraction, seed=seed)
    for part, what in zip(indices, ("train", "test"), strict=True):
        description = f"the {len(part)} {what} rows of {source} (test_fraction={test_fraction}, seed={seed})"
        _check_part(groups, y, part, what=description, parts=parts)
    if impute:
        means = np.nan_to_num(np.nanmean(values[indices[0]], axis=0))
        values = np.where(np.isnan(values), means, values)
    bad = ~np.isfinite(values).all(axis=0)
    if bad.any():
        raise ValueError(f"{source} has NaN or infinite values in {listed(np.array(names)[bad])}")
    center, scale = tables.fit_scaling(values[indices[0]], scaling, margin=rounding_margin(), parts=parts)
    train, test = (
        Data(
            jnp.asarray(with_bias((values[part] - center) / scale, float_dtype())),
            jnp.asarray(y[part], jnp.int32),
            jnp.asarray(groups.codes[part], jnp.int32),
            jnp.ones(len(part), float_dtype()),
            len(groups.values),
        )
        for part in indices
    )
    check_values(train, what=f"the train rows of {source}")
    check_values(test, what=f"the test rows of {source}")
    numbers = np.arange(len(values)) if rows is None else np.asarray(rows, np.int64)
    return Split(
        train=train,
        test=test,
        feature_names=(*names, BIAS),
        center=center,
        scale=scale,
        scaling=scaling,
        train_rows=numbers[indices[0]],
        test_rows=numbers[indices[1]],
        source=source,
        dropped_columns=tuple(str(name) for name in features.columns[constant]),
        group_name=groups.name,
        group_values=groups.values,
        **described,
    )


def _check_part(groups: Groups, y, part, *, what: str, parts: Parts) -> None:
    """Raises ValueError unless a part has every group and label, and among more than two groups every label of each."""
    counts = np.bincount(2 * groups.codes[part] + y[part], minlength=2 * len(groups.values)).reshape(-1, 2)
    counts = parts.total(counts)
    check_cells(counts, what=what)
    if len(counts) > 2 and not counts.all():
        group, label = np.argwhere(counts == 0)[0]
        raise ValueError(
            f"{what} have no label {label} with {groups.name} {groups.values[group]!r} ({counts[group].sum()} rows); "
            "pass small_groups='merge' with a larger min_group_rows, or another seed"
        )
