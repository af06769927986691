"""Made-up people, and what the tests look for in the bytes of a store."""

import contextlib
import sqlite3
from pathlib import Path

import jax
import numpy as np
import pandas as pd

from fmu_jax import Objective
from fmu_jax.deletion import exports, ledger, model, training
from fmu_jax.deletion.model import Settings
from fmu_jax.deletion.table import Table
from tests.placing import put

OBJECTIVE = Objective(l2=1e-3, fairness=1.0)


def people(n: int, *, seed: int = 0) -> pd.DataFrame:
    """People of whom nobody shares an age or a score with another."""
    rng = np.random.default_rng(seed)
    woman, age, score = rng.random(n) < 0.4, rng.normal(40, 10, n), rng.normal(0, 1, n)
    paid = rng.random(n) < 1 / (1 + np.exp(-(score + 0.5 * woman - 0.3 + (age - 40) / 20)))
    return pd.DataFrame(
        {
            "id": [f"{k:04d}" for k in range(n)],
            "age": age,
            "score": score,
            "job": rng.choice(["cook", "clerk", "smith"], n),
            "sex": np.where(woman, "woman", "man"),
            "paid": np.where(paid, "yes", "no"),
        }
    )


def make_store(folder: Path, n: int = 400, *, seed: int = 0, **plan) -> training.Trained:
    """Writes people.csv beside a new store and trains on it; by default for four releases."""
    path = folder.with_name("people.csv")
    people(n, seed=seed).to_csv(path, index=False)
    source = Table(path, "id", "paid", "sex")
    return training.train(
        folder, source, objective=OBJECTIVE, plan=training.Plan(**{"releases": 4, "planned": 0.05} | plan), seed=seed
    )


def look(folder: Path):
    """Settings, state and all rows of a store, past its own opening."""
    with contextlib.closing(sqlite3.connect(folder / ledger.NAME)) as db, db:
        settings = Settings.from_json(ledger.meta(db, "settings"))
        found = settings, model.unpack(settings, ledger.meta(db, "state")), ledger.rows_between(db, 0, settings.rows)
    return found


def released(folder: Path) -> np.ndarray:
    """What the ledger holds as published."""
    with contextlib.closing(sqlite3.connect(folder / ledger.NAME)) as db, db:
        found = exports.released(db)
    return found


def position(folder: Path, name: str) -> int:
    """Where a person's row lies."""
    from fmu_jax.deletion import people as identifiers

    with contextlib.closing(sqlite3.connect(folder / ledger.NAME)) as db, db:
        found = ledger.find_people(db, identifiers.hash_ids(ledger.meta(db, "salt"), [name]))
    return int(found[0, 0])


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a store."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def reweighted(objective, *, fairness=None, penalty=None):
    """Another objective with the same shapes."""
    new = Objective(l2=1.0, fairness=1.0, penalty=penalty or "equalized_odds")
    leaves = (
        jax.tree.leaves(objective) if penalty is None else [*jax.tree.leaves(objective)[:2], *jax.tree.leaves(new)[2:]]
    )
    if fairness is not None:
        leaves[1] = fairness
    return jax.tree.unflatten(jax.tree.structure(objective), [put(leaf) for leaf in leaves])
