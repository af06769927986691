"""What measuring experiments share: the models of a finished training run, and the test images that all of them see."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fmu_jax.deletion import files
from scripts.harness import cli, mesh, placement, store
from scripts.harness.experiment import Experiment, Row
from scripts.harness.lazy import jax, jnp, pags_jax

if TYPE_CHECKING:
    from pags_jax import datasets


@dataclasses.dataclass(frozen=True)
class MeasuringConfig(cli.Common):
    """Flags of every experiment that measures trained models."""

    trained: Path = Path("runs/pags_train")
    """Finished run folder of scripts.pags.train, whose models are measured."""
    images: cli.Count = 200
    """Number of test images, drawn by --seed; every model gets the same ones."""
    folder: Path | None = None
    """Folder of the data set's files; by default the one that the training was given."""


class Sample(NamedTuple):
    """Test images of a data set.

    Attributes:
      x: ``(n, h, w, c)`` floats in [0, 1].
      y: ``(n,)`` labels.
      mask: ``(n, h, w)``, true where an image holds its signal; None unless that is known.
      data: The whole data set.
    """

    x: jax.Array
    y: jax.Array
    mask: jax.Array | None
    data: datasets.Images


def trained_rows(folder: Path) -> list[Row]:
    """The rows of the models that a training run has, those that diverged left out.

    Raises:
      ValueError: If there is no finished run, or it has no model.
    """
    try:
        table = store.read_rows(folder)
    except FileNotFoundError as error:
        raise ValueError(f"--trained: {error}; train first, with python -m scripts.pags.train") from None
    models = [row for row in table if row.get("weights")]
    if not models:
        raise ValueError(f"--trained: {folder} holds no trained model")
    return models


def plan(config: MeasuringConfig) -> list[dict[str, Any]]:
    """One unit of work for each trained model."""
    return units(trained_rows(config.trained))


def units(table: list[Row]) -> list[dict[str, Any]]:
    """One unit of work for each model."""
    return [{name: row[name] for name in ("loss", "strength", "seed")} for row in table]


def model_of(folder: Path, table: list[Row], unit: dict[str, Any]) -> tuple[Row, Any]:
    """A model's training row, with its classes counted, and the model as a function that ``jit`` takes as argument."""
    (row,) = (row for row in table if all(row[name] == value for name, value in unit.items()))
    path = folder / row["weights"]
    model, variables, _ = pags_jax.models.load(path, kind="classifier")
    return row | {"classes": model.classes}, pags_jax.models.evaluator(model, variables)


def digests(config: MeasuringConfig, table: list[Row], files: Mapping[str, Path]) -> dict[str, str]:
    """SHA-256 of what a run measures and with what, because paths alone do not show that it has not changed.

    Raises:
      ValueError: If a file is missing.
    """
    weights = [config.trained / row["weights"] for row in table]
    for path in weights:
        if not path.is_file():
            raise ValueError(
                f"--trained: the model {path} is missing; put it back, or train again with "
                "python -m scripts.pags.train and another --out"
            )
    contents = {"trained": [config.trained / "rows.jsonl", *sorted(weights)]}
    contents |= {name: [path] for name, path in files.items()}
    return {f"{name}_sha256": digest_of(paths) for name, paths in contents.items()}


def digest_of(paths: list[Path]) -> str:
    """SHA-256 of the digests of some files, in order."""
    whole = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def experiment(
    name: str, config_type: type[MeasuringConfig], *, setup: Callable[[Any, list[Row]], Any],
    rows_of: Callable[[Any, Any, dict[str, Any], Any], list[Row]],
    files: Callable[[Any, list[Row]], Mapping[str, Path]] = lambda config, table: {}, **declared: Any,
) -> Experiment:  # fmt: skip
    """An experiment that measures each model of a finished training run.

    ``setup(config, table)`` makes what all models need, from the training run's rows, ``files(config, table)`` names
    other files that are part of what a run is, and ``rows_of(config, ready, unit, apply_fn)`` maps a unit and its model
    to rows, to which accuracy, strength and classes are added. A column may be an array of one value for each image:
    the row gets mean and standard error over the images that have all of its arrays, and the values of all images go
    to ``values/UNIT.npz``.
    """

    def measured(config: MeasuringConfig, ready: Any, **unit: Any) -> list[Row]:
        trained, apply_fn = model_of(config.trained, trained_rows(config.trained), unit)
        known = {name: trained[name] for name in ("test_accuracy", "loss_strength", "classes")}
        found = rows_of(config, ready, unit, apply_fn)
        arrays = [name for name, value in found[0].items() if isinstance(value, np.ndarray)]
        if arrays:
            values = {name: np.stack([row[name] for row in found]) for name in arrays}
            save_arrays(config.out / "values" / f"{store.unit_name(unit)}.npz", values)
        return [known | pags_jax.statistics.means_of(row) for row in found]

    def inputs(config: MeasuringConfig) -> dict[str, str]:
        table = trained_rows(config.trained)
        return digests(config, table, files(config, table))

    return Experiment(
        name, config_type, measured, plan, setup=lambda config: setup(config, trained_rows(config.trained)),
        inputs=inputs, **declared,
    )  # fmt: skip


def sample(config: MeasuringConfig, table: list[Row]) -> Sample:
    """The test images that every model of a run meets."""
    trained = table[0]
    options = {"folder": config.folder or trained["config.folder"]}
    if trained["config.dataset"] == "distractor":
        options |= {"seed": trained["config.seed"], "of": trained["config.distractor_of"]}
    data = pags_jax.datasets.load(trained["config.dataset"], **options)
    if config.images > len(data.test_y):
        raise ValueError(f"--images: there are {len(data.test_y)} test images, got {config.images}")
    chosen = np.random.default_rng(config.seed).permutation(len(data.test_y))[: config.images]
    mask = None if data.test_mask is None else jnp.asarray(data.test_mask[chosen])
    return Sample(pags_jax.images.to_float(data.test_x[chosen]), jnp.asarray(data.test_y[chosen]), mask, data)


def save_arrays(path: Path, arrays: Mapping[Any, Any]) -> None:
    """Write arrays as a compressed npz, atomically."""
    found = placement.on_host(dict(arrays))
    if mesh.leads():
        content = io.BytesIO()
        np.savez_compressed(content, allow_pickle=False, **found)
        files.write_bytes(path, content.getvalue())
