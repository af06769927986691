"""Certified networks beside retrained ones and certified heads, at an equal number of repair steps, as rows."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from fmu_jax.data import Data, select_rows
from fmu_jax.fitting import fit
from fmu_jax.forget_sets import split_public
from fmu_jax.metrics import measure
from fmu_jax.networks import continue_adam, continue_side_by_side, hidden_rows
from fmu_jax.noisy_finetuning import finetune_by_all
from fmu_jax.objective import Objective
from fmu_jax.publication import release_table
from fmu_jax.removal import remove


def frontier_table(
    linear: Objective, model: Any, train: Data, test: Data, *, public: float, forgotten: float, train_steps: int,
    learning_rate: float, checkpoints: Sequence[int], mus: Sequence[float], admitted: float, seed: int,
    key: PRNGKeyArray, **routes: Any,
) -> list[dict[str, Any]]:  # fmt: skip
    """Certified fine-tuning by every route, retraining, uncertified fine-tuning, and a certified head's release.

    Args:
      linear: Objective of the head; with the model's predictions it is that of the networks.
      model: A network of ``networks``.
      train: Training rows, float32.
      test: Rows to measure on.
      public: Share of the training rows that are public; these are never forgotten.
      forgotten: Share of the training rows to forget.
      train_steps: Number of steps of Adam in training.
      learning_rate: Adam's, in training and in repair.
      checkpoints: Numbers of repair steps after which models are measured, ascending.
      mus: Gaussian-DP parameters of the guarantees.
      admitted: Distance that the release of the head admits.
      seed: Seed of the draws of rows.
      key: PRNG key of the initialisation and of all noise.
      routes: ``routes``, ``clips``, ``steps`` and ``repair_steps`` of ``noisy_finetuning.finetune_by_all``.

    Returns:
      A row for each method, start and number of repair steps; ``gradients`` counts the rows whose gradients were
      computed. A head whose release would be refused has no metrics; heads are in float64, so ``jax_enable_x64`` is on.
    """
    for_init, for_noise = jax.random.split(key)
    n, init = len(train.y), model.init(for_init, train.x[:1])
    objective = dataclasses.replace(linear, predict=model.apply)
    adam: Callable[..., Any] = partial(continue_adam, objective, learning_rate=learning_rate)
    known, own = split_public(n, public, seed=seed)
    forget = np.sort(own[: round(forgotten * n)])
    is_public = jnp.zeros_like(train.weight).at[known].set(1)
    center = adam(init, train._replace(weight=is_public), steps=train_steps)
    whole = adam(init, train, steps=train_steps)
    left = train._replace(weight=train.weight.at[forget].set(0))
    starts: list[tuple[dict[str, Any], Any]] = [({"method": "finetune", "start": "trained"}, whole)]
    starts += [({"method": "retrain", "start": "init"}, init), ({"method": "retrain", "start": "public"}, center)]
    options: dict[str, Any] = {"mus": mus, "learning_rate": learning_rate, "key": for_noise, **routes}
    options |= {"centers": {"init": init, "public": center}}
    starts += finetune_by_all(objective, whole, train, forget, **options)
    full = adam(init, left, steps=train_steps)
    about: dict[str, Any] = {"method": "retrain", "start": "init", "repair_steps": train_steps}
    last = about | {"gradients": train_steps * n} | measure(objective, full, test)
    table, models = [], [params for _, params in starts]
    options = {"checkpoints": (0, *checkpoints), "learning_rate": learning_rate}
    for steps, repaired in continue_side_by_side(objective, models, left, **options):
        for (about, _), params in zip(starts, repaired, strict=True):
            cost = about.get("gradients", 0) + steps * (n - len(forget))
            row = about | {"repair_steps": steps, "gradients": cost, "rows_removed": len(forget)}
            table.append(row | measure(objective, params, test))
    own = np.sort(own)
    features = partial(hidden_rows, model, center, dtype=jnp.float64)
    rows = features(select_rows(train, own))
    removal = remove(linear, fit(linear, rows).params, rows, np.searchsorted(own, forget))
    options = {"mus": mus, "admitted": admitted, "key": jax.random.fold_in(for_noise, 10_000)}
    about = {"method": "head", "start": "public", "repair_steps": 0, "gradients": 0}
    return [*table, last, *(about | row for row in release_table(linear, removal, features(test), **options))]
