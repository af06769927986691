"""Makes a new store from a table of people: trains, plans the releases, stores what later deletions need."""

import math
import random
import secrets
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fmu_jax import Data, FitResult, Objective, datasets, fit, metrics, predict_labels, privacy, stream
from fmu_jax.deletion import exports, ledger, model, people, planning, records, seal, table
from fmu_jax.deletion.model import Settings
from fmu_jax.deletion.planning import Plan
from fmu_jax.deletion.table import Table
from fmu_jax.penalty_forms import FORMS


class Trained(NamedTuple):
    """The result of a training, for the owner of the store.

    Attributes:
      settings: Settings of the store.
      dropped_people: How many lack a value and were left out.
      planned_people: How many people the planned deletion takes.
      planned_distance: How far it was certified from the retrained model, in the norm of the noise's shape.
      accuracy: Accuracy of the model on the held-out people; it is trained without noise.
      secret_noise_accuracy: Accuracy of models trained with secret noise in the objective, as the paper does, for the
        same epsilon on one model: on average over five draws.
      series: For 1, 10, 100, 1000 and as many releases as are planned, the noise's scale and the accuracy of a release
        on average.
    """

    settings: Settings
    dropped_people: int
    planned_people: int
    planned_distance: float
    accuracy: float
    secret_noise_accuracy: float
    series: dict[int, tuple[float, float]]

    @property
    def cost_of_noise(self) -> float:
        """How much accuracy the noise of a release takes on average, at as many releases as are planned."""
        return self.accuracy - self.series[self.settings.releases][1]


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
      store: The store's folder; must not exist, or be an empty folder.
      source: The table of people.
      objective: Ridge, fairness and the name of a penalty, which is what a store keeps of it; None is
        ``Objective(l2=1e-4, fairness=1.0)``.
      plan: The series of releases and its guarantee; None is ``Plan()``: epsilon 1 at delta 1e-5 for 100 releases.
      seed: Seed of the split into people to train on and people held out; None takes it from the operating system. The
        noise of releases never follows from it.

    Returns:
      What there is to tell.

    Raises:
      ValueError: ``store`` holds something, or the table or the plan cannot be used; the message says what to do.
      OSError: A file cannot be read or written.
    """
    folder, plan = Path(store), plan or Plan()
    objective = objective or Objective(l2=1e-4, fairness=1.0)
    mu = planning.mu(plan)
    _check_objective(objective)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(f"{folder} exists and stays as it is; choose another `store`")
    draw = secrets.SystemRandom() if seed is None else random.Random(seed)
    # From the start, so that a place that cannot be written to is refused at once.
    with exports.building(folder) as place:
        ids, split = table.read(source, seed=draw.getrandbits(32))
        fitted = _fitted(objective, split.train)
        settings = _settings(split, objective, plan, mu)
        state = model.start(settings, fitted, split.train)
        count, forgotten, far = planning.planned(settings, state, split.train, plan, draw.getrandbits(64))
        settings = planning.admitting(settings, state, split.train, plan, far)
        told = Trained(
            settings=settings,
            dropped_people=split.dropped_rows,
            planned_people=count,
            planned_distance=far,
            accuracy=_accuracy(objective, fitted.params, split.test),
            secret_noise_accuracy=_with_secret_noise(objective, split, float(forgotten.residual_bound), mu, plan.delta),
            series={
                k: planning.released_accuracy(settings, k, fitted.params, split)
                for k in sorted({*planning.SERIES, settings.releases})
            },
        )
        _write(place, settings, state, split, ids)
    return told


def _check_objective(objective: Objective) -> None:
    """Refuses what a store could not keep."""
    stored = Objective(l2=objective.l2, fairness=objective.fairness, penalty=objective.penalty)
    if not isinstance(objective.penalty, str) or jax.tree.structure(stored) != jax.tree.structure(objective):
        raise ValueError(
            f"a store keeps `l2`, `fairness` and the name of a `penalty` ({', '.join(FORMS)}), and nothing else of an "
            f"objective; got {objective}"
        )


def _fitted(objective: Objective, data: Data) -> FitResult:
    found = fit(objective, data, throw=False)
    if not found.converged:
        raise ValueError(
            f"training stopped after {int(found.steps)} steps at gradient norm {float(found.grad_norm):.3g} a person, "
            "before it reached the optimum; use a larger `l2` or a smaller `fairness`"
        )
    return found


def _settings(split: datasets.Split, objective: Objective, plan: Plan, mu: float) -> Settings:
    return Settings(
        store=secrets.token_hex(16),
        l2=float(objective.l2),
        fairness=float(objective.fairness),
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
    epsilon = max(float(privacy.gaussian_epsilon(mu, 1.0, delta)), 1e-9)  # For an epsilon of 0 no noise is enough.
    sigma = residual / float(privacy.residual_from(epsilon, 1.0, delta))
    draws = np.random.default_rng().normal(scale=sigma, size=(5, split.train.x.shape[1]))
    found = [fit(objective, split.train, noise=jnp.asarray(b), throw=False) for b in draws]
    return float(np.mean([_accuracy(objective, one.params, split.test) for one in found]))


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
