"""From a table of people to a new store: choose the noise, train, keep what later deletions need."""

import contextlib
import fcntl
import math
import random
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fmu_jax import Data, FitResult, Objective, datasets, fit, metrics, predict_labels, privacy, stream
from fmu_jax.deletion import exports, ledger, model, people, records, seal, table
from fmu_jax.deletion.model import Settings
from fmu_jax.deletion.table import Table
from fmu_jax.deletion.waiting import holder
from scripts.harness import files, placement


class Noise(NamedTuple):
    """How strong the noise is: as ``sigma`` says, or so that deleting the planned share of people costs ``epsilon``."""

    epsilon: float
    delta: float
    sigma: float | None = None
    planned: float = 0.01


class Trained(NamedTuple):
    """What training has to tell: settings, people without a row, the planned deletion and its cost, accuracies."""

    settings: Settings
    dropped_people: int
    planned_people: int
    planned_residual: float
    planned_epsilon: float
    accuracy_without_noise: float
    accuracy: float


def train(folder: Path, source: Table, objective: Objective, noise: Noise, *, seed: int | None = None) -> Trained:
    """Trains a model and makes a store of it; after a kill there is either no store or a whole one.

    Args:
      folder: the store; must not exist, or be an empty folder.
      source: the table of people.
      objective: what to minimise; its penalty is given by name.
      noise: how strong.
      seed: of split and noise; None takes them from the operating system's source of secrets.

    Returns:
      What there is to tell.

    Raises:
      ValueError: ``folder`` holds something, or the table cannot be used; the message says what to do.
      OSError: a file cannot be read or written.
    """
    model.use_float64()
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(f"{folder} exists and stays as it is; choose another --store")
    draw = secrets.SystemRandom() if seed is None else random.Random(seed)
    ids, split = table.read(source, seed=draw.getrandbits(32))

    data = placement.table(split.train)
    pilot = _fitted(objective, data)
    count, residual = _plan(objective, pilot, split.train, noise, draw.getrandbits(64))
    sigma = _noise_level(residual, noise.epsilon, noise.delta) if noise.sigma is None else noise.sigma
    settings = _settings(split, objective, noise, sigma)
    perturbation = jnp.asarray([draw.gauss(0.0, sigma) for _ in split.feature_names])
    fitted = _fitted(objective, data, noise=perturbation)
    state = model.start(settings, fitted, data, perturbation)
    if bool(stream.needs_refresh(state)):
        raise ValueError(
            f"rounding alone costs epsilon {float(state.epsilon):.3g} at sigma {sigma:g}, above the budget "
            f"{noise.epsilon:g}; use a larger --sigma or --epsilon"
        )
    with _building(folder) as place:
        _write(place, settings, state, split, ids)
    return Trained(
        settings=settings,
        dropped_people=split.dropped_rows,
        planned_people=count,
        planned_residual=residual,
        planned_epsilon=float(privacy.certified_epsilon(residual, sigma, noise.delta)),
        accuracy_without_noise=_accuracy(objective, pilot.params, split.test),
        accuracy=_accuracy(objective, state.params, split.test),
    )


def _fitted(objective: Objective, data: Data, *, noise: jax.Array | None = None) -> FitResult:
    found = fit(objective, data, noise=noise, throw=False)
    if not found.converged:
        raise ValueError(
            f"training stopped after {int(found.steps)} steps at gradient norm {float(found.grad_norm):.3g} a person, "
            "before it reached the optimum; use a larger --l2 or a smaller --fairness"
        )
    return found


def _plan(objective: Objective, pilot: FitResult, data: Data, noise: Noise, seed: int) -> tuple[int, float]:
    """Streams a random deletion of the planned share from a model without noise: how many people, which residual."""
    cell = 2 * np.asarray(data.group) + np.asarray(data.y)
    pool = np.setdiff1d(np.arange(len(cell)), np.unique(cell, return_index=True)[1])  # One of each cell stays.
    if not len(pool):
        raise ValueError(f"{len(cell)} people are too few to train on and to delete from")
    count = min(max(1, round(noise.planned * len(cell))), len(pool))
    chosen = np.random.default_rng(seed).choice(pool, count, replace=False)
    state = stream.start(
        objective, pilot, placement.table(data), noise=None, sigma=1.0, delta=noise.delta, budget=noise.epsilon
    )
    rows = model.stacked(jax.tree.map(lambda leaf: leaf[chosen], data))
    return count, float(model.delete(state, rows).residual_bound)


def _noise_level(residual: float, epsilon: float, delta: float) -> float:
    """The smallest power of two at which this residual costs at most epsilon: it hardly depends on single people."""
    return 2.0 ** math.ceil(math.log2(residual / float(privacy.residual_from(epsilon, 1.0, delta))))


def _settings(split: datasets.Split, objective: Objective, noise: Noise, sigma: float) -> Settings:
    return Settings(
        store=secrets.token_hex(16),
        l2=objective.l2,
        fairness=objective.fairness,
        penalty=str(objective.penalty),
        sigma=sigma,
        delta=noise.delta,
        budget=noise.epsilon,
        feature_names=split.feature_names,
        center=tuple(split.center.tolist()),
        scale=tuple(split.scale.tolist()),
        scaling=split.scaling,
        label_name=split.label_name,
        label_values=split.label_values,
        group_name=split.group_name,
        group_values=split.group_values,
        train_rows=len(split.train_rows),
        test_rows=len(split.test_rows),
    )


def _accuracy(objective: Objective, params: jax.Array, test: Data) -> float:
    return float(metrics.group_metrics(predict_labels(objective, params, test.x), test).accuracy)


@contextlib.contextmanager
def _building(folder: Path) -> Iterator[Path]:
    """A folder beside the store's place, which takes that place once it is whole; what a kill left is removed."""
    place = folder.with_name(f"{files.TEMPORARY_PREFIX}{folder.name}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    place.mkdir(mode=0o700, exist_ok=True)
    lock = place / ".lock"
    with lock.open("ab") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{holder(lock)} is training for {folder}; wait for it") from None
        try:
            for leftover in place.iterdir():
                if leftover != lock:
                    shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
            yield place
            lock.unlink()
            files.sync_folder(place)
            place.rename(folder)
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
    files.sync_folder(folder.parent)


def _write(place: Path, settings: Settings, state: stream.State, split: datasets.Split, ids: list[str]) -> None:
    salt = secrets.token_bytes(32)
    chosen = [*split.test_rows, *split.train_rows]
    hashes = people.hash_ids(salt, [ids[record] for record in chosen])
    absent = people.hash_ids(salt, [ids[record] for record in sorted(set(range(len(ids))) - set(chosen))])
    rows = np.concatenate([model.stacked(part) for part in (split.test, split.train)])
    meta = {"settings": settings.to_json(), "salt": salt, "state": model.pack(state)}
    if absent:
        meta[people.LEFT_OUT] = b"".join(sorted(absent))
    record = records.make(
        settings,
        state,
        None,
        method=records.TRAINED,
        deleted={"train": 0, "test": 0},
        remaining={"train": settings.train_rows, "test": settings.test_rows},
        after=model.assess(state, split.test),
    )
    with ledger.created(place) as db:
        with ledger.exclusive(db):
            ledger.add_people(db, hashes, range(settings.rows))
            ledger.add_rows(db, rows)
            ledger.add_record(db, record)
            everybody = ((name, position, 0) for position, name in enumerate(hashes))
            for name, value in (meta | {seal.NAME: seal.whole(meta, everybody, rows, record.digest)}).items():
                ledger.put_meta(db, name, value)
        exports.catch_up(db, place)
