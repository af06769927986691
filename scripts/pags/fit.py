"""Training a model by `pags_jax.resuming` as experiments do: on this backend and mesh, with its progress shown."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from scripts.harness import compiling, mesh, placement, progress
from scripts.harness.lazy import jax, pags_jax

if TYPE_CHECKING:
    from pags_jax import training
    from pags_jax.resuming import Fit


def is_stepwise(driver: str = "auto") -> bool:
    """Whether Python drives the steps: on CPUs, unless told otherwise."""
    return driver == "steps" or (driver == "auto" and jax.default_backend() == "cpu")


@functools.cache
def compiled_step(step: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """A step, by default a classifier's, under one ``jit`` for the whole process, with the backend's options."""
    step, options = step or pags_jax.training.step, compiling.compiler_options()
    return jax.jit(step, static_argnames="task", donate_argnames="state", compiler_options=options)


def fit(
    task: training.Task, hyper: Any, x: jax.Array, y: jax.Array, *, key: jax.Array, epochs: int, folder: Path,
    fingerprint: Mapping[str, Any], save_minutes: float, driver: str = "auto", label: str = "",
    trainer: ModuleType | None = None, variables: Mapping[str, Any] | None = None,
) -> tuple[Fit, float | None]:  # fmt: skip
    """Train a model, from its newest checkpoint if there is one; returns the run and the images per second.

    Raises:
      FloatingPointError: At the first metric that is not finite; the message names it and the step.
      CheckpointError: See `pags_jax.checkpoints.restore`.
    """
    resuming, same = pags_jax.resuming, {"folder": folder, "fingerprint": fingerprint}
    trainer = trainer or pags_jax.training
    done = resuming.start(task, x, key=key, epochs=epochs, trainer=trainer, variables=variables, **same)
    step, began, rates = compiled_step(trainer.step), time.perf_counter(), []
    how = resuming.Driver(
        step if is_stepwise(driver) else None, step, placement.batches, time.perf_counter, mesh.leads()
    )
    at, finished = int(done.state.step), int(done.state.step) // pags_jax.training.steps_per_epoch(task, len(x))
    rest = resuming.epochs_of(task, hyper, x, y, done, how, save_s=60 * save_minutes, trainer=trainer, **same)
    for done in progress.track(rest, total=epochs, finished=finished, label=label, what="epochs"):
        now, reached = time.perf_counter(), int(done.state.step)
        rates.append((reached - at) * task.batch_size / (now - began))
        at, began = reached, now
    return done, float(np.median(rates[1:])) if rates[1:] else None
