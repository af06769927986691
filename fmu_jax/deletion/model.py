"""The streamed model of a store: its settings, its state as bytes, its rows as ``Data``, and how well it does.

A stored row is ``[x, label, group]`` in float64, with the constant 1 last in ``x``. A removed row is all zeros, so that
the constant is also the row's weight.
"""

import dataclasses
import io
import json
import zipfile
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fmu_jax import Data, FitResult, Objective, metrics, predict_labels, stream
from fmu_jax.data import cell_counts
from fmu_jax.intervals import FairnessInterval
from scripts.harness import placement

_SMALLEST_BATCH = 16
_PLACES = 3
"""Decimals of a published rate: with many, the rates before and after tell how a single person was predicted."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What a store was trained with; none of it changes later, and none of it is secret.

    Attributes:
      store: the store's identity, random.
      l2, fairness, penalty: of the objective.
      sigma, delta, budget: noise level, failure probability, and the largest epsilon of a published model.
      feature_names, center, scale, scaling: how a row becomes features; the last name is the constant's.
      label_name, label_values, group_name, group_values: what labels 0 and 1 and each group mean.
      train_rows, test_rows: how many people were trained on and held out; the held-out ones have the first positions.
    """

    store: str
    l2: float
    fairness: float
    penalty: str
    sigma: float
    delta: float
    budget: float
    feature_names: tuple[str, ...]
    center: tuple[float, ...]
    scale: tuple[float, ...]
    scaling: str
    label_name: str
    label_values: tuple[str, str]
    group_name: str
    group_values: tuple[str, ...]
    train_rows: int
    test_rows: int

    @property
    def rows(self) -> int:
        """How many people the store began with."""
        return self.train_rows + self.test_rows

    @property
    def objective(self) -> Objective:
        """The objective, without its perturbation."""
        return Objective(l2=self.l2, fairness=self.fairness, penalty=self.penalty)

    def to_json(self) -> bytes:
        """As JSON; floats keep their exact values."""
        return json.dumps(dataclasses.asdict(self)).encode()

    @classmethod
    def from_json(cls, content: bytes) -> "Settings":
        """Reads what `to_json` wrote.

        Raises:
          ValueError: it is damaged.
        """
        fields: dict[str, Any] = json.loads(content)
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
        }
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"the store's settings are damaged ({error})") from error


def use_float64() -> None:
    """Certificates want float64; everything that touches a store calls this first."""
    jax.config.update("jax_enable_x64", True)


def stacked(data: Data) -> np.ndarray:
    """Rows as they are stored, ``(n, d + 2)`` float64."""
    return np.column_stack([np.asarray(part, np.float64) for part in (data.x, data.y, data.group)])


def as_data(rows: np.ndarray, groups: int = 2) -> Data:
    """Stored rows as ``Data`` of so many groups, a removed one with weight zero; over the devices of a mesh."""
    y, group = (jnp.asarray(rows[:, column].astype(np.int32)) for column in (-2, -1))
    return placement.table(Data(jnp.asarray(rows[:, :-2]), y, group, jnp.asarray(rows[:, -3]), groups))


def start(settings: Settings, fitted: FitResult, data: Data, noise: Any) -> stream.State:
    """Anchors a stream of deletions at a fitted model, as ``fmu_jax.stream.start`` with the store's settings."""
    return stream.start(
        settings.objective,
        fitted,
        data,
        noise=noise,
        sigma=settings.sigma,
        delta=settings.delta,
        budget=settings.budget,
    )


def delete(state: stream.State, rows: np.ndarray) -> stream.State:
    """Removes stored rows from the model; they are padded to a power of two, so that few shapes are compiled."""
    size = max(_SMALLEST_BATCH, 1 << (len(rows) - 1).bit_length())
    padded = np.zeros((size, rows.shape[1]))
    padded[: len(rows)] = rows
    return stream.delete(state, as_data(padded, len(state.counts)))


def pack(state: stream.State) -> bytes:
    """A state as bytes: an npz of its arrays, uncompressed, so that the length never changes."""
    content = io.BytesIO()
    np.savez(content, *(np.asarray(leaf) for leaf in jax.tree.leaves(state)))
    return content.getvalue()


def unpack(settings: Settings, packed: bytes) -> stream.State:
    """Reads what `pack` wrote.

    Raises:
      ValueError: it is damaged, or belongs to other settings.
    """
    expected, structure = jax.tree.flatten(_structure(settings))
    try:
        with np.load(io.BytesIO(packed), allow_pickle=False) as content:
            leaves = [content[f"arr_{k}"] for k in range(len(content.files))]
    except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"the stored state of the model is damaged ({error})") from error
    if [(leaf.shape, leaf.dtype) for leaf in leaves] != [(leaf.shape, leaf.dtype) for leaf in expected]:
        raise ValueError("the stored state of the model is damaged: its arrays are not those of the settings")
    return jax.tree.unflatten(structure, [jnp.asarray(leaf) for leaf in leaves])


def _structure(settings: Settings) -> stream.State:
    """The shapes of a state, without computing one."""
    d = len(settings.feature_names)
    params: Any = np.zeros(d)
    scalars: Any = (np.ones((), bool), np.zeros(()), np.zeros((), np.int32))
    row = as_data(np.ones((1, d + 2)), len(settings.group_values))
    return jax.eval_shape(partial(start, settings), FitResult(params, *scalars), row, params)


def assess(state: stream.State, test: Data) -> dict[str, Any]:
    """How the model does on the held-out people, and what retraining could do.

    Args:
      state: the model.
      test: the held-out rows that remain.

    Returns:
      Rates by name to `_PLACES` decimals, None where nobody is left to count; ``retrained`` holds, by the same names,
      the interval that the retrained model's rate lies in, rounded outwards, or is None where a group or a label has
      nobody left.
    """
    found, interval, counts = jax.device_get(_measure(state, test))
    # Mean gaps are no part of a certificate: between two groups they say the same again.
    named = {name: value for name, value in found._asdict().items() if not name.endswith("_mean_gap")}
    rates = {name: _plain(np.round(value, _PLACES)) for name, value in named.items()}
    if not (counts.sum(axis=0).all() and counts.sum(axis=1).all()):
        return rates | {"retrained": None}
    ends = {name: _plain(_outwards(value)) for name, value in interval._asdict().items() if name != "undecided"}
    return rates | {"retrained": ends | {"undecided": int(interval.undecided)}}


@jax.jit
def _measure(state: stream.State, test: Data) -> tuple[metrics.GroupMetrics, FairnessInterval, jax.Array]:
    labels = predict_labels(state.objective, state.params, test.x)
    return metrics.group_metrics(labels, test), stream.fairness_interval(state, test), cell_counts(test)


def _outwards(interval: np.ndarray) -> np.ndarray:
    """Intervals ``(..., 2)`` to `_PLACES` decimals; what rounding took from an end is given back first."""
    low, high = np.moveaxis(interval * 10**_PLACES, -1, 0)
    return np.stack([np.floor(low + 1e-6), np.ceil(high - 1e-6)], axis=-1) / 10**_PLACES


def _plain(value: Any) -> Any:
    if np.ndim(value):
        return [_plain(item) for item in value]
    return float(value) if np.isfinite(value) else None
