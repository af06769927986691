"""A training run that gives the same result after a kill: epochs of a model, with checkpoints (extra ``checkpoints``).

Metrics stay on the device until an epoch ends or the state is saved; a number that is not finite stops the run there.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pags_jax import checkpoints, training


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


class Driver(NamedTuple):
    """How epochs are driven.

    Attributes:
      compiled_step: The trainer's step under a ``jit`` of your own, called step by step (on CPUs convolutions inside
        of loops take twice as long); None makes one program of an epoch that is whole.
      rest_step: The step for the rest of an epoch that is not, if the former is None.
      place: As for ``training.steps``.
      clock: Seconds, such as ``time.perf_counter``.
      writes: Whether this process writes the checkpoints.
    """

    compiled_step: Callable[..., Any] | None
    rest_step: Callable[..., Any] | None = None
    place: Callable[[Any], Any] = lambda rows: rows
    clock: Callable[[], float] = lambda: 0.0
    writes: bool = True


def start(
    task: training.Task, x: Any, *, key: jax.Array, epochs: int, folder: Path, fingerprint: Mapping[str, Any],
    trainer: Any = training, variables: Mapping[str, Any] | None = None,
) -> Fit:  # fmt: skip
    """The run from its newest checkpoint if there is one, else from its beginning.

    Args:
      task: What is trained.
      x: All images.
      key: Draws parameters and all of the training.
      epochs: Number of epochs in all.
      folder: Folder of the checkpoints.
      fingerprint: What the run is; see `checkpoints.save`.
      trainer: `training`, or a module alike, such as `generative`.
      variables: Variables of a trained network, to begin with; by default the key draws them.

    Raises:
      CheckpointError: See `checkpoints.restore`.
    """
    total = epochs * training.steps_per_epoch(task, len(x))
    table = np.zeros((total, len(trainer.Metrics._fields)), np.float32)
    state = trainer.init(task, x[:1], key=key)
    if variables is not None:
        own = jax.tree.map(jnp.array, dict(variables))  # A step gives its state's memory away.
        state = state._replace(params=own["params"], statistics=own.get("batch_stats", {}))
    fresh = Fit(state, table, np.zeros(()))
    return fresh if checkpoints.latest(folder) is None else checkpoints.restore(folder, fresh, fingerprint=fingerprint)


def epochs_of(
    task: training.Task, hyper: Any, x: Any, y: Any, done: Fit, driver: Driver, *, folder: Path,
    fingerprint: Mapping[str, Any], save_s: float, trainer: Any = training,
) -> Iterator[Fit]:  # fmt: skip
    """Trains on from `start`, and yields the run after each epoch; writes a checkpoint every ``save_s`` seconds and at
    the end.

    Args:
      task: What is trained.
      hyper: As for ``training.step``.
      x: All images.
      y: Their labels.
      done: The run so far, from `start`.
      driver: How steps are driven.
      folder: Folder of the checkpoints.
      fingerprint: What the run is.
      save_s: Seconds between checkpoints.
      trainer: As for `start`.

    Raises:
      FloatingPointError: At the first metric that is not finite; the message names it and the step.
    """
    per_epoch, step, clock = training.steps_per_epoch(task, len(x)), int(done.state.step), driver.clock
    total, saved = len(done.metrics), clock()
    while step < total:
        looked, fresh = clock(), []
        for state, metrics in _epoch(task, done.state, x, y, hyper, driver, trainer):
            fresh.append(metrics)
            step += metrics.loss.size
            due = step == total or clock() - saved >= save_s
            if due or step % per_epoch == 0:
                table = _look(done.metrics, fresh, step)
                done = Fit(state, table, done.train_s + (clock() - looked))
                looked, fresh = clock(), []
            if due and driver.writes:
                checkpoints.save(folder, done, step=step, fingerprint=fingerprint)
            if due:
                saved = clock()
        yield done


class Trained(NamedTuple):
    """A training run that is over.

    Attributes:
      run: The run.
      means: ``(epochs, k)``: the k metrics' means over each epoch, in float64.
      images_per_s: Median over the epochs but the first, which compiles; None if this process trained none of them, or
        has no clock.
    """

    run: Fit
    means: np.ndarray
    images_per_s: float | None


def fit(
    task: training.Task, hyper: Any, x: Any, y: Any, driver: Driver, *, key: jax.Array, epochs: int, folder: Path,
    fingerprint: Mapping[str, Any], save_s: float = 300.0, trainer: Any = training,
    variables: Mapping[str, Any] | None = None, track: Callable[..., Iterable[Fit]] = lambda rest, finished: rest,
) -> Trained:  # fmt: skip
    """Trains to the end, from the newest checkpoint if there is one: `start`, then `epochs_of`, which say what else
    may be given and what is raised.

    Args:
      task: What is trained.
      hyper: As for ``training.step``.
      x: All images.
      y: Their labels.
      driver: How steps are driven; with a clock, the speed is measured.
      key: Draws parameters and all of the training.
      epochs: Number of epochs in all.
      folder: Folder of the checkpoints.
      fingerprint: What the run is.
      save_s: Seconds between checkpoints.
      trainer: As for `start`, as are ``variables``.
      variables: Variables of a trained network, to begin with.
      track: ``track(rest, finished=n)`` passes on the epochs that are to come, after ``n``, such as to show progress.
    """
    same: dict[str, Any] = {"folder": folder, "fingerprint": fingerprint, "trainer": trainer}
    done = start(task, x, key=key, epochs=epochs, variables=variables, **same)
    at, began, rates = int(done.state.step), driver.clock(), []
    rest = epochs_of(task, hyper, x, y, done, driver, save_s=save_s, **same)
    for done in track(rest, finished=at // training.steps_per_epoch(task, len(x))):
        now, reached = driver.clock(), int(done.state.step)
        if now > began:
            rates.append((reached - at) * task.batch_size / (now - began))
        at, began = reached, now
    means = done.metrics.reshape(epochs, -1, done.metrics.shape[1]).mean(1, dtype=np.float64)
    return Trained(done, means, float(np.median(rates[1:])) if rates[1:] else None)


def _epoch(
    task: training.Task, state: Any, x: Any, y: Any, hyper: Any, driver: Driver, trainer: Any
) -> Iterable[tuple[Any, Any]]:
    """The rest of the epoch that ``state`` is in, in one program where it is whole."""
    step = driver.compiled_step
    if step is None and int(state.step) % training.steps_per_epoch(task, len(x)):
        step = driver.rest_step
    if step is not None:
        return training.steps(task, state, x, y, hyper, compiled_step=step, place=driver.place)
    return [training.scan_epoch(task, state, x, y, hyper, one_step=trainer.step, place=driver.place)]


def _look(table: np.ndarray, fresh: list[Any], step: int) -> np.ndarray:
    """The table of metrics with those of the steps before ``step`` filled in, if all are finite."""
    columns = zip(*jax.device_get(fresh), strict=True)
    new = np.stack([np.concatenate([np.atleast_1d(part) for part in column]) for column in columns], 1)
    first = step - len(new)
    training.check_finite(type(fresh[0])(*jnp.asarray(new.T)), first)
    return np.concatenate([table[:first], new, table[step:]])
