"""Training a network by `pags_jax.resuming` as experiments do: on this backend and mesh, with its progress shown."""

from __future__ import annotations

import functools
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from scripts.harness import cli, compiling, mesh, names, placement, progress, rows, store
from scripts.harness.experiment import Row
from scripts.harness.lazy import jax, pags_jax

HOW = (*store.RUN_FIELDS, "folder", "driver", "save_minutes")
"""Fields of a configuration that change nothing of a network."""


@dataclass(frozen=True)
class Config(cli.Common):
    """Flags of every experiment that trains networks on a data set."""

    folder: Path | None = None
    """Folder of the data set's files; by default they are downloaded if possible."""
    epochs: cli.Count = 20
    """Number of passes over the training images."""
    batch_size: cli.Count = 64
    """Number of images in a step."""
    driver: names.Driver = "auto"
    """Whether Python runs single steps or an epoch is one program; auto runs single steps on CPUs."""
    save_minutes: cli.NonNegative = 5.0
    """Minutes between checkpoints of a network."""


def images_of(config: Any) -> pags_jax.datasets.Images:
    """The image set of a configuration."""
    options = {"seed": config.seed, "of": config.distractor_of} if config.dataset == "distractor" else {}
    return pags_jax.datasets.load(config.dataset, folder=config.folder, **options)


def is_stepwise(driver: str = "auto") -> bool:
    """Whether Python drives the steps: on CPUs, unless told otherwise."""
    return driver == "steps" or (driver == "auto" and jax.default_backend() == "cpu")


@functools.cache
def compiled_step(step: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """A step, by default a classifier's, under one ``jit`` for the whole process, with the backend's options."""
    step, options = step or pags_jax.training.step, compiling.compiler_options()
    return jax.jit(step, static_argnames="task", donate_argnames="state", compiler_options=options)


def fit(
    config: Config, unit: dict[str, Any], task: pags_jax.training.Task, hyper: Any, x: jax.Array, y: jax.Array,
    trainer: ModuleType | None = None, **start: Any,
) -> tuple[pags_jax.resuming.Trained, Row]:  # fmt: skip
    """Train one of a run's networks by `pags_jax.resuming.fit`, and give columns of its row as well.

    Raises:
      FloatingPointError: At the first metric that is not finite; the message names it and the step.
    """
    resuming, trainer = pags_jax.resuming, trainer or pags_jax.training
    step, label = compiled_step(trainer.step), store.unit_name(unit)
    stepwise = step if is_stepwise(config.driver) else None
    driver = resuming.Driver(stepwise, step, placement.batches, time.perf_counter, mesh.leads())
    done = resuming.fit(
        task, hyper, x, y, driver, epochs=config.epochs, folder=folder_of(config, unit),
        fingerprint=rows.flatten(config, without=store.RUN_FIELDS) | unit, save_s=60 * config.save_minutes,
        trainer=trainer, track=functools.partial(progress.track, total=config.epochs, label=label, what="epoch"),
        **start,
    )  # fmt: skip
    row = {"epoch_loss": done.means[:, 0].tolist(), "train_s": float(done.run.train_s)}
    return done, row | {"images_per_s": done.images_per_s}


def folder_of(config: Config, unit: dict[str, Any]) -> Path:
    """The folder of a network's checkpoints."""
    return config.out / "checkpoints" / store.unit_name(unit)


def finished(config: Config, unit: dict[str, Any]) -> None:
    """Remove the checkpoints of a network whose rows are written."""
    shutil.rmtree(folder_of(config, unit), ignore_errors=True)
