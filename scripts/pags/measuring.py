"""What measuring experiments share: the models of a finished training run, and the test images that all of them see."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fmu_jax.deletion import files
from scripts.harness import cli, mesh, placement, report, store
from scripts.harness.experiment import Experiment, Row
from scripts.harness.lazy import pags_jax


@dataclasses.dataclass(frozen=True)
class MeasuringConfig(cli.Common):
    """Flags of every experiment that measures trained models."""

    trained: Path = Path("runs/pags_train")
    """Finished run folder of scripts.pags.train, whose models are measured."""
    images: cli.Count = 200
    """Number of test images, drawn by --seed; every model gets the same ones."""
    folder: Path | None = None
    """Folder of the data set's files; by default the one that the training was given."""

    def units(self) -> list[dict[str, Any]]:
        """One unit of work for each trained model."""
        return units_of(trained_rows(self.trained))

    def files(self) -> Mapping[str, Path]:
        """What is part of the run beside the models: files by their flags."""
        return {}


def trained_rows(folder: Path) -> list[Row]:
    """The rows of the models that a training run has, those that diverged left out; raises ValueError without one."""
    try:
        table = store.read_rows(folder)
    except FileNotFoundError as error:
        raise ValueError(f"--trained: {error}; train first, with python -m scripts.pags.train") from None
    models = [row for row in table if row.get("weights")]
    if not models:
        raise ValueError(f"--trained: {folder} holds no trained model")
    return models


def units_of(table: list[Row]) -> list[dict[str, Any]]:
    """One unit of work for each model."""
    return [{name: row[name] for name in ("loss", "strength", "seed")} for row in table]


def model_of(folder: Path, **unit: Any) -> tuple[Row, Any]:
    """What rows say of a trained model, and the model as a function that ``jit`` takes as an argument."""
    (row,) = report.where(trained_rows(folder), **unit)
    model, variables, _ = pags_jax.models.load(folder / row["weights"], kind="classifier")
    known = {name: row[name] for name in ("test_accuracy", "loss_strength")} | {"classes": model.classes}
    return known, pags_jax.models.evaluator(model, variables)


def inputs(config: MeasuringConfig) -> dict[str, str]:
    """SHA-256 of what a run measures and with what, because paths alone do not show that it has not changed."""
    weights = [config.trained / row["weights"] for row in trained_rows(config.trained)]
    for path in weights:
        if not path.is_file():
            raise ValueError(f"--trained: the model {path} is missing; put it back, or train again into another --out")
    contents = {"trained": [config.trained / "rows.jsonl", *sorted(weights)]}
    contents |= {name: [path] for name, path in config.files().items()}
    return {f"{name}_sha256": digest_of(paths) for name, paths in contents.items()}


def digest_of(paths: list[Path]) -> str:
    """SHA-256 of the digests of some files, in order."""
    whole = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def experiment(
    name: str, config_type: type[MeasuringConfig], *,
    rows_of: Callable[[Any, Any, dict[str, Any], Any], list[Row]], **declared: Any,
) -> Experiment:  # fmt: skip
    """An experiment that measures each model of a finished training run.

    ``rows_of(config, ready, unit, apply_fn)`` maps a unit and its model to rows, to which accuracy, strength and
    classes are added. A column may be an array of one value for each image: the row gets mean and standard error over
    the images that have all of its arrays, and the values of all images go to ``values/UNIT.npz``.
    """

    def measured(config: MeasuringConfig, ready: Any, **unit: Any) -> list[Row]:
        known, apply_fn = model_of(config.trained, **unit)
        found = rows_of(config, ready, unit, apply_fn)
        arrays = [name for name, value in found[0].items() if isinstance(value, np.ndarray)]
        if arrays:
            values = {name: np.stack([row[name] for row in found]) for name in arrays}
            save_arrays(config.out / "values" / f"{store.unit_name(unit)}.npz", values)
        return [known | pags_jax.means.means_of(row) for row in found]

    return Experiment(name, config_type, measured, inputs=inputs, optimised=True, **declared)


def sample(config: MeasuringConfig) -> pags_jax.samples.Sample:
    """The test images that every model of a run meets."""
    trained = trained_rows(config.trained)[0]
    options = {"folder": config.folder or trained["config.folder"]}
    if trained["config.dataset"] == "distractor":
        options |= {"seed": trained["config.seed"], "of": trained["config.distractor_of"]}
    data = pags_jax.datasets.load(trained["config.dataset"], **options)
    if config.images > len(data.test_y):
        raise ValueError(f"--images: there are {len(data.test_y)} test images, got {config.images}")
    return pags_jax.samples.draw(data, config.images, seed=config.seed)


def save_arrays(path: Path, arrays: Mapping[str, Any], first: int | None = None) -> None:
    """Write arrays as a compressed npz, atomically: their first rows, or all."""
    found = placement.on_host({name: array[:first] for name, array in arrays.items()})
    if mesh.leads():
        content = io.BytesIO()
        np.savez_compressed(content, allow_pickle=False, **found)
        files.write_bytes(path, content.getvalue())


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz."""
    if not path.is_file():
        raise ValueError(f"{path} is missing; measure again, with another --out")
    with np.load(path, allow_pickle=False) as file:
        return dict(file)
