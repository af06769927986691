"""The contents of a store, read for verification."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fmu_jax import Data, stream
from fmu_jax.deletion import exports, ledger, model, records
from fmu_jax.deletion.ledger import Ledger, Record
from fmu_jax.deletion.model import Settings


class Disagreement(ValueError):
    """Two things that must agree do not."""


class Evidence(NamedTuple):
    """Everything in a store that is to be checked.

    Attributes:
      folder: The store.
      fault: What SQLite finds wrong with its file; empty if nothing.
      meta: All that is kept by name.
      settings, state: Settings and state of the model, which has no noise.
      released: What is published, ``(d,)``.
      certificates: All that the ledger has, as they are stored.
      contents: What each certificate says.
      hashes, positions, requests: Hashes, positions and requests of everybody, ``(n,)``.
      rows: Everybody's row, ``(n, d + 2)``, followed in ``padding`` by what else is stored.
    """

    folder: Path
    fault: str
    meta: dict[str, bytes]
    settings: Settings
    state: stream.State
    released: np.ndarray
    certificates: list[Record]
    contents: list[dict[str, Any]]
    hashes: list[bytes]
    positions: np.ndarray
    requests: np.ndarray
    rows: np.ndarray
    padding: np.ndarray

    @property
    def train(self) -> Data:
        """The training rows, deleted ones at weight zero."""
        return model.as_data(self.rows[self.settings.test_rows :], len(self.settings.group_values))

    @property
    def test(self) -> Data:
        """The held-out rows, deleted ones at weight zero."""
        return model.as_data(self.rows[: self.settings.test_rows], len(self.settings.group_values))


def look(db: Ledger, folder: Path) -> Evidence:
    """Reads a store.

    Args:
      db: Its ledger.
      folder: The store.

    Raises:
      ValueError: Settings, state or certificates cannot be read at all.
    """
    settings = Settings.from_json(ledger.meta(db, "settings"))
    state = model.unpack(settings, ledger.meta(db, "state"))
    certificates = list(ledger.records(db))
    everybody = list(ledger.all_people(db))
    rows = ledger.rows_between(db, 0, settings.rows)
    return Evidence(
        folder=folder,
        fault=ledger.fault(db),
        meta=ledger.all_meta(db),
        settings=settings,
        state=state,
        released=exports.released(db),
        certificates=certificates,
        contents=[records.parse(record) for record in certificates],
        hashes=[name for name, _, _ in everybody],
        positions=np.array([position for _, position, _ in everybody], np.int64),
        requests=np.array([request for _, _, request in everybody], np.int64),
        rows=rows,
        padding=ledger.padding(db, settings.rows),
    )


def agree(condition: Any, otherwise: str) -> None:
    """Raises Disagreement, saying ``otherwise``, unless the condition holds."""
    if not condition:
        raise Disagreement(otherwise)
