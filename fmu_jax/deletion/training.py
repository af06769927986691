"""From a table of people to a new store: choose the noise, train, keep what later deletions need."""

import dataclasses
import math
import random
import secrets
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fmu_jax import Data, FitResult, Objective, datasets, fit, metrics, predict_labels, privacy, stream
from fmu_jax.deletion import exports, guarantee, ledger, model, people, records, seal, table
from fmu_jax.deletion.model import Settings
from fmu_jax.deletion.table import Table

SERIES = (1, 10, 100, 1000)
"""For how many planned releases `Trained` tells the noise and the accuracy."""
_DRAWS = 100
_MARGIN = 4.0
"""How much further than the fresh model a later retrained one may be; its rounding errors differ a little."""


class Plan(NamedTuple):
    """How many releases are planned, and what they may cost together.

    Attributes:
      mu: Gaussian-DP parameter of the series, > 0; or
      epsilon: its epsilon at `delta`, > 0; 1 where neither is given.
      delta: failure probability, in (0, 1), at which epsilons are given.
      releases: how many requests may be served by unlearning, at least 1. Later ones retrain, at no further cost.
      planned: share of the people, in (0, 1], whose deletion an unlearned model should withstand before it is
        retrained; it sets the admitted distance.
      admitted: in its place, the admitted distance itself, > 0: the smaller, the less noise and the more retraining.
    """

    mu: float | None = None
    epsilon: float | None = None
    delta: float = 1e-5
    releases: int = 100
    planned: float = 0.01
    admitted: float | None = None


class Trained(NamedTuple):
    """What training has to tell whoever runs the store.

    Attributes:
      settings: of the store.
      dropped_people: how many lack a value and were left out.
      planned_people: how many people the planned deletion takes.
      planned_distance: how far it was certified from the retrained model, in the norm of the noise's shape.
      accuracy: of the model on the held-out people; it is trained without noise.
      secret_noise_accuracy: of models trained with secret noise in the objective, as the paper does, for the same
        epsilon on one model: on average over five draws.
      series: for each of `SERIES` planned releases, the noise's scale and the accuracy of a release, on average.
    """

    settings: Settings
    dropped_people: int
    planned_people: int
    planned_distance: float
    accuracy: float
    secret_noise_accuracy: float
    series: dict[int, tuple[float, float]]


@model.in_float64
def train(
    store: str | Path,
    source: Table,
    *,
    objective: Objective | None = None,
    plan: Plan | None = None,
    seed: int | None = None,
) -> Trained:
    """Trains a fair model and makes a store of it; after a kill there is either no store or a whole one.

    Args:
      store: the store's folder; must not exist, or be an empty folder.
      source: the table of people.
      objective: what to minimise; its penalty is given by name. None is ``Objective(l2=1e-4, fairness=1.0)``.
      plan: the series of releases and its guarantee; None is ``Plan()``: epsilon 1 at delta 1e-5 for 100 releases.
      seed: of the split into people to train on and people held out; None takes it from the operating system. The
        noise of releases never follows from it.

    Returns:
      What there is to tell.

    Raises:
      ValueError: ``store`` holds something, or the table or the plan cannot be used; the message says what to do.
      OSError: a file cannot be read or written.
    """
    folder, plan = Path(store), plan or Plan()
    objective = objective or Objective(l2=1e-4, fairness=1.0)
    mu = _mu(plan)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(f"{folder} exists and stays as it is; choose another `store`")
    draw = secrets.SystemRandom() if seed is None else random.Random(seed)
    # From the start, so that a place that cannot be written to is refused at once.
    with exports.building(folder) as place:
        ids, split = table.read(source, seed=draw.getrandbits(32))
        fitted = _fitted(objective, split.train)
        settings = _settings(split, objective, plan, mu)
        state = model.start(settings, fitted, split.train)
        count, forgotten, far = _planned(settings, state, split.train, plan, draw.getrandbits(64))
        settings = _admitting(settings, state, split.train, plan, far)
        _write(place, settings, state, split, ids)
    return Trained(
        settings=settings,
        dropped_people=split.dropped_rows,
        planned_people=count,
        planned_distance=far,
        accuracy=_accuracy(objective, fitted.params, split.test),
        secret_noise_accuracy=_with_secret_noise(objective, split, float(forgotten.residual_bound), mu, plan.delta),
        series={number: _released_accuracy(settings, number, fitted.params, split) for number in SERIES},
    )


def _mu(plan: Plan) -> float:
    """The Gaussian-DP parameter of the planned series."""
    if plan.mu is not None and plan.epsilon is not None:
        raise ValueError("`mu` and `epsilon` say the same in two ways; give one of them")
    if plan.mu is not None:
        return plan.mu
    return float(privacy.gaussian_mu(1.0 if plan.epsilon is None else plan.epsilon, plan.delta))


def _fitted(objective: Objective, data: Data, *, noise: jax.Array | None = None) -> FitResult:
    found = fit(objective, data, noise=noise, throw=False)
    if not found.converged:
        raise ValueError(
            f"training stopped after {int(found.steps)} steps at gradient norm {float(found.grad_norm):.3g} a person, "
            "before it reached the optimum; use a larger `l2` or a smaller `fairness`"
        )
    return found


def _planned(
    settings: Settings, state: stream.State, data: Data, plan: Plan, seed: int
) -> tuple[int, stream.State, float]:
    """Streams a random deletion of the planned share: how many people, the state after it, its certified distance."""
    cell = 2 * np.asarray(data.group) + np.asarray(data.y)
    pool = np.setdiff1d(np.arange(len(cell)), np.unique(cell, return_index=True)[1])  # One of each cell stays.
    if not len(pool):
        raise ValueError(f"{len(cell)} people are too few to train on and to delete from")
    count = min(max(1, round(plan.planned * len(cell))), len(pool))
    chosen = np.random.default_rng(seed).choice(pool, count, replace=False)
    x = np.array(data.x)
    after = model.delete(state, model.stacked(jax.tree.map(lambda leaf: leaf[chosen], data)))
    x[chosen] = 0
    return count, after, guarantee.distance(after, guarantee.shape_of(x, settings.l2))


def _admitting(settings: Settings, state: stream.State, data: Data, plan: Plan, far: float) -> Settings:
    """The settings with the admitted distance, a power of two that hardly depends on single people, and its noise."""
    shape = guarantee.shape_of(np.asarray(data.x), settings.l2)
    least = _MARGIN * guarantee.distance(state, shape) / guarantee.RETRAINED
    wanted = max(far, least) if plan.admitted is None else plan.admitted
    if not (least <= wanted < math.inf):
        raise ValueError(
            f"the admitted distance {wanted:.3g} is out of reach: at least {least:.3g} is needed, or rounding "
            "passes it; use a larger `l2`"
            + (", or plan for fewer people with a smaller `planned`" if plan.admitted is None else " or `admitted`")
        )
    admitted = 2.0 ** math.ceil(math.log2(wanted)) if plan.admitted is None else wanted
    scale = guarantee.scale_for(settings.mu, settings.releases, admitted)
    settings = dataclasses.replace(settings, admitted=admitted, scale=scale)
    guarantee.publish(settings, state.params, 0.0, 1, shape)  # Refuses noise that would drown in rounding.
    return settings


def _settings(split: datasets.Split, objective: Objective, plan: Plan, mu: float) -> Settings:
    return Settings(
        store=secrets.token_hex(16),
        l2=objective.l2,
        fairness=objective.fairness,
        penalty=str(objective.penalty),
        mu=mu,
        delta=plan.delta,
        releases=plan.releases,
        admitted=math.nan,
        scale=math.nan,
        feature_names=split.feature_names,
        center=tuple(split.center.tolist()),
        scale_of_features=tuple(split.scale.tolist()),
        scaling=split.scaling,
        label_name=split.label_name,
        label_values=split.label_values,
        group_name=split.group_name,
        group_values=split.group_values,
        train_rows=len(split.train_rows),
        test_rows=len(split.test_rows),
    )


def _with_secret_noise(objective: Objective, split: datasets.Split, residual: float, mu: float, delta: float) -> float:
    """Accuracy of the paper's scheme, whose noise must hide the planned deletion's residual in one model."""
    sigma = residual / float(privacy.residual_from(privacy.gaussian_epsilon(mu, 1.0, delta), 1.0, delta))
    draws = np.random.default_rng().normal(scale=sigma, size=(5, split.train.x.shape[1]))
    found = [fit(objective, split.train, noise=jnp.asarray(b), throw=False) for b in draws]
    return float(np.mean([_accuracy(objective, one.params, split.test) for one in found]))


def _released_accuracy(
    settings: Settings, number: int, params: jax.Array, split: datasets.Split
) -> tuple[float, float]:
    """The scale of the noise for a series of so many releases, and the accuracy of a release on average."""
    scale = guarantee.scale_for(settings.mu, number, settings.admitted)
    root = np.linalg.cholesky(guarantee.shape_of(np.asarray(split.train.x), settings.l2))
    noise = np.linalg.solve(root.T, np.random.default_rng().normal(size=(len(root), _DRAWS)))
    labels = np.asarray(split.test.x) @ (np.asarray(params)[:, None] + scale * noise) > 0
    return scale, float((labels == (np.asarray(split.test.y) == 1)[:, None]).mean())


def _accuracy(objective: Objective, params: jax.Array, test: Data) -> float:
    return float(metrics.group_metrics(predict_labels(objective, params, test.x), test).accuracy)


def _write(place: Path, settings: Settings, state: stream.State, split: datasets.Split, ids: list[str]) -> None:
    salt = secrets.token_bytes(32)
    chosen = [*split.test_rows, *split.train_rows]
    hashes = people.hash_ids(salt, [ids[record] for record in chosen])
    absent = people.hash_ids(salt, [ids[record] for record in sorted(set(range(len(ids))) - set(chosen))])
    rows = np.concatenate([model.stacked(part) for part in (split.test, split.train)])
    params = np.asarray(state.params, "<f8")
    meta = {
        "settings": settings.to_json(),
        "salt": salt,
        "state": model.pack(state),
        exports.RELEASED: params.tobytes(),
    }
    if absent:
        meta[people.LEFT_OUT] = b"".join(sorted(absent))
    record = records.make(
        settings,
        params,
        None,
        fresh=False,
        deleted={"train": 0, "test": 0},
        remaining={"train": settings.train_rows, "test": settings.test_rows},
        after=model.assess(params, split.test),
    )
    _fill(place, meta, list(zip(hashes, range(settings.rows), strict=True)), rows, record)


def _fill(
    place: Path, meta: dict[str, bytes], everybody: list[tuple[bytes, int]], rows: np.ndarray, record: ledger.Record
) -> None:
    """Makes the ledger of a new store, sealed, and the files that follow it."""
    with ledger.created(place) as db:
        with ledger.exclusive(db):
            ledger.add_people(db, *zip(*everybody, strict=True))
            ledger.add_rows(db, rows)
            ledger.add_record(db, record)
            sealed = seal.whole(meta, ((*person, 0) for person in everybody), rows, record.digest)
            for name, value in (meta | {seal.NAME: sealed}).items():
                ledger.put_meta(db, name, value)
        exports.catch_up(db, place)
