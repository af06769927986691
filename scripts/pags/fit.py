"""One training run that a kill cannot change: the epochs of a model, saved on the way.

On CPUs steps are driven from Python (convolutions inside of loops take twice as long there), elsewhere an epoch
is one program. Metrics stay on the device until an epoch ends or the state is saved; a number that is not finite stops
the run there.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from scripts.harness import compiling, mesh, placement, progress
from scripts.harness.lazy import jax, jnp, pags_jax

if TYPE_CHECKING:
    from pags_jax import training


class Fit(NamedTuple):
    """A training run, finished or on the way.

    Attributes:
        state: What was trained.
        metrics: ``(steps, k)``: the k metrics of every step, such as loss, accuracy and gradient norm; 0 where it is
            still to come.
        train_s: Seconds of training, those before a resume included.
    """

    state: Any
    metrics: np.ndarray
    train_s: np.ndarray


def is_stepwise(driver: str = "auto") -> bool:
    """Whether Python drives the steps: on CPUs, unless told otherwise."""
    return driver == "steps" or (driver == "auto" and jax.default_backend() == "cpu")


@functools.cache
def compiled_step(step: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """A step, by default a classifier's, under one ``jit`` for the whole process, with the backend's options."""
    step, options = step or pags_jax.training.step, compiling.compiler_options()
    return jax.jit(step, static_argnames="task", donate_argnames="state", compiler_options=options)


def fit(
    task: training.Task,
    hyper: Any,
    x: jax.Array,
    y: jax.Array,
    *,
    key: jax.Array,
    epochs: int,
    folder: Path,
    fingerprint: Mapping[str, Any],
    save_minutes: float,
    driver: str = "auto",
    label: str = "",
    trainer: ModuleType | None = None,
) -> tuple[Fit, float | None]:
    """Train a model, from its newest checkpoint if there is one.

    Raises:
        FloatingPointError: At the first metric that is not finite; the message names it and the step.
        CheckpointError: See `pags_jax.checkpoints.restore`.
    """
    trainer = trainer or pags_jax.training
    per_epoch = pags_jax.training.steps_per_epoch(task, len(x))
    total = epochs * per_epoch
    table = np.zeros((total, len(trainer.Metrics._fields)), np.float32)
    done = Fit(trainer.init(task, x[:1], key=key), table, np.zeros(()))
    if pags_jax.checkpoints.latest(folder) is not None:
        done = pags_jax.checkpoints.restore(folder, done, fingerprint=fingerprint)
    step = int(done.state.step)
    saved, rates = time.perf_counter(), []
    for _ in progress.track(
        range(step // per_epoch, epochs), total=epochs, finished=step // per_epoch, label=label, what="epochs"
    ):
        first, began, looked, fresh = step, time.perf_counter(), time.perf_counter(), []
        for state, metrics in _epoch(task, done.state, x, y, hyper, driver, trainer):
            fresh.append(metrics)
            step += metrics.loss.size
            due = step == total or time.perf_counter() - saved >= 60 * save_minutes
            if due or step % per_epoch == 0:
                table = _look(done.metrics, fresh, step)
                done = Fit(state, table, done.train_s + (time.perf_counter() - looked))
                looked, fresh = time.perf_counter(), []
            if due and mesh.leads():
                pags_jax.checkpoints.save(folder, done, step=step, fingerprint=fingerprint)
            if due:
                saved = time.perf_counter()
        rates.append((step - first) * task.batch_size / (time.perf_counter() - began))
    return done, float(np.median(rates[1:])) if rates[1:] else None


def _epoch(
    task: training.Task, state: Any, x: jax.Array, y: jax.Array, hyper: Any, driver: str, trainer: ModuleType
) -> Iterable[tuple[Any, Any]]:
    """The rest of the epoch that ``state`` is in, in one program where it is whole."""
    training = pags_jax.training
    if is_stepwise(driver) or int(state.step) % training.steps_per_epoch(task, len(x)):
        step = compiled_step(trainer.step)
        return training.steps(task, state, x, y, hyper, compiled_step=step, place=placement.batches)
    return [training.scan_epoch(task, state, x, y, hyper, one_step=trainer.step, place=placement.batches)]


def _look(table: np.ndarray, fresh: list[Any], step: int) -> np.ndarray:
    """The table of metrics with those of the steps before ``step``, if all are finite."""
    columns = zip(*jax.device_get(fresh), strict=True)
    new = np.stack([np.concatenate([np.atleast_1d(part) for part in column]) for column in columns], 1)
    first = step - len(new)
    pags_jax.training.check_finite(type(fresh[0])(*jnp.asarray(new.T)), first)
    return np.concatenate([table[:first], new, table[step:]])
