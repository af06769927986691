"""The streamed model of a store: its settings, its state as bytes, its rows as ``Data``, and how well it does.

A stored row is ``[x, label, group]`` in float64, with the constant 1 last in ``x``. A removed row is all zeros, so that
the constant is also the row's weight.
"""

import dataclasses
import io
import json
import zipfile
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from fmu_jax import Data, FitResult, Objective, metrics, moments, stream

_SMALLEST_BATCH = 16
_PLACES = 3
"""Decimals of a published rate: with many, the rates before and after tell how a single person was predicted."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What a store was trained with; none of it changes later, and none of it is secret.

    Attributes:
      store: The store's identity, random.
      l2, fairness, penalty: Ridge strength, fairness weight and penalty of the objective.
      mu, delta: Gaussian-DP parameter that the planned series of releases may cost, and the delta at which epsilons are
        given.
      releases: How many releases are planned.
      admitted: The largest certified distance to the retrained model that is released, in the norm of the shape.
      scale: Standard deviation of each release's noise.
      feature_names, center, scale_of_features, scaling: How a row becomes features; the last name is the constant's.
      label_name, label_values, group_name, group_values: What labels 0 and 1 and each group mean.
      train_rows, test_rows: How many people were trained on and held out; the held-out ones have the first positions.
    """

    store: str
    l2: float
    fairness: float
    penalty: str
    mu: float
    delta: float
    releases: int
    admitted: float
    scale: float
    feature_names: tuple[str, ...]
    center: tuple[float, ...]
    scale_of_features: tuple[float, ...]
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
          ValueError: It is damaged.
        """
        fields: dict[str, Any] = json.loads(content)
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
        }
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"the store's settings are damaged ({error})") from error


P = ParamSpec("P")
R = TypeVar("R")


def in_float64(function: Callable[P, R]) -> Callable[P, R]:
    """The function, computing in float64, as certificates want it; JAX's own setting is the caller's and stays."""

    @wraps(function)
    def run(*args: P.args, **options: P.kwargs) -> R:
        with jax.enable_x64(True):
            return function(*args, **options)

    return run


def stacked(data: Data) -> np.ndarray:
    """Rows as they are stored, ``(n, d + 2)`` float64."""
    return np.column_stack([np.asarray(part, np.float64) for part in (data.x, data.y, data.group)])


def as_data(rows: np.ndarray, groups: int = 2) -> Data:
    """Stored rows as ``Data`` of so many groups, a removed one with weight zero."""
    y, group = (rows[:, column].astype(np.int32) for column in (-2, -1))
    # Moved and not made: JAX compiles a program for each shape that it makes an array of.
    x, y, group, weight = jax.device_put((rows[:, :-2], y, group, rows[:, -3]))
    return Data(x, y, group, weight, groups)


def start(settings: Settings, fitted: FitResult, data: Data) -> stream.State:
    """Anchors a stream of deletions at a fitted model, without noise in training: releases carry their own."""
    # Without noise there is no epsilon of objective perturbation; what a stream asks for it is not read.
    return stream.start(settings.objective, fitted, data, noise=None, sigma=1.0, delta=settings.delta, budget=1.0)


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
      ValueError: It is damaged, or belongs to other settings.
    """
    expected, structure = jax.tree.flatten(_structure(settings))
    try:
        with np.load(io.BytesIO(packed), allow_pickle=False) as content:
            leaves = [content[f"arr_{k}"] for k in range(len(content.files))]
    except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"the stored state of the model is damaged ({error})") from error
    if [(leaf.shape, leaf.dtype) for leaf in leaves] != [(leaf.shape, leaf.dtype) for leaf in expected]:
        raise ValueError("the stored state of the model is damaged: its arrays are not those of the settings")
    return jax.device_put(jax.tree.unflatten(structure, leaves))


def _structure(settings: Settings) -> stream.State:
    """A state of zeros, for its shapes."""
    d, objective = len(settings.feature_names), settings.objective
    vector: Any = np.zeros(d)
    number: Any = np.zeros(())
    count: Any = np.zeros((), np.int32)
    return stream.State(
        params=vector,
        residual_bound=number,
        epsilon=number,
        objective=jax.tree.map(lambda leaf: np.zeros(np.shape(leaf)), objective),
        noise=vector,
        anchor=vector,
        moments=moments.none(objective, len(settings.group_values), d),
        row_norm=number,
        sigma=number,
        delta=number,
        budget=number,
        deleted=count,
        refreshes=count,
    )


def assess(params: np.ndarray, test: Data) -> dict[str, Any]:
    """How a published model does on the held-out people.

    Args:
      params: What is published, ``(d,)``: nothing else of the model may be seen in a certificate.
      test: The held-out rows that remain.

    Returns:
      Rates by name to `_PLACES` decimals, None where nobody is left to count.
    """
    found = jax.device_get(_measure(jax.device_put(params), test))
    # Mean gaps are no part of a certificate: between two groups they say the same again.
    named = {name: value for name, value in found._asdict().items() if not name.endswith("_mean_gap")}
    return {name: _plain(np.round(value, _PLACES)) for name, value in named.items()}


@jax.jit
def _measure(params: jax.Array, test: Data) -> metrics.GroupMetrics:
    return metrics.group_metrics((test.x @ params > 0).astype(jnp.int32), test)


def _plain(value: Any) -> Any:
    if np.ndim(value):
        return [_plain(item) for item in value]
    return float(value) if np.isfinite(value) else None
