"""Trained classifiers on disk: an npz file of weights that says what architecture they are of.

model, variables = load_model(Path("runs/pags_train/models/....npz"))
apply_fn = pags_jax.models.evaluator(model, variables)
"""

import dataclasses
import functools
import io
import zipfile
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pags_jax import models
from scripts.harness import files, rows

Name = Literal["lenet", "resnet14", "resnet18", "resnet34", "resnet50", "vgg11"]
DType = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What makes a model the one that it is, besides its weights.

    Attributes:
        name: A name that `pags_jax.models.create` knows.
        shape: Of one image, (height, width, channels).
        classes: How many.
        activation: Nonlinearity.
        beta: Of the softplus.
        stem: Of residual networks.
        width: Multiplies the numbers of channels.
        dtype: What the layers compute in.
    """

    name: str
    shape: tuple[int, int, int]
    classes: int
    activation: str = "relu"
    beta: float = 20.0
    stem: int = 3
    width: float = 1.0
    dtype: str = "float32"

    @functools.cache  # noqa: B019 - one module for an architecture, so that ``jit`` compiles it once
    def create(self) -> nn.Module:
        """The flax module."""
        return models.create(
            self.name,
            classes=self.classes,
            activation=self.activation,
            beta=self.beta,
            stem=self.stem,
            width=self.width,
            dtype=jnp.dtype(self.dtype),
        )

    def variables(self) -> Any:
        """Types and shapes of the variables, without their values."""
        image = jax.ShapeDtypeStruct((1, *self.shape), jnp.float32)
        return jax.eval_shape(self.create().init, jax.random.key(0), image)


def architecture_of(config: Any, shape: tuple[int, ...], classes: int) -> Architecture:
    """The architecture that a training configuration asks for, for images of this shape."""
    height, width, channels = shape
    return Architecture(
        config.model,
        (height, width, channels),
        classes,
        activation=config.activation,
        stem=config.stem,
        width=config.width,
        dtype=config.dtype,
    )


def save_model(path: Path, architecture: Architecture, variables: Any) -> Path:
    """Write a model, atomically.

    Args:
        path: Where; must end in ``.npz``.
        architecture: What it is.
        variables: Its ``params``, and ``batch_stats`` if it has any.

    Raises:
        ValueError: If the variables are not those of the architecture, or the path has another ending.
    """
    if path.suffix != ".npz":
        raise ValueError(f"models are saved as .npz, got {path.name!r}")
    arrays = _by_path(variables)
    _check_same(path, _by_path(architecture.variables()), arrays)
    content = io.BytesIO()
    about = np.array(rows.to_json(dataclasses.asdict(architecture)))
    np.savez(content, allow_pickle=False, architecture=about, **{name: np.asarray(a) for name, a in arrays.items()})
    files.write_bytes(path, content.getvalue())
    return path


def load_model(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Read a model that `save_model` wrote.

    Args:
        path: The file.

    Returns:
        The flax module, and its variables.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is no such file or damaged, or holds weights of another architecture than it says.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            arrays = dict(content)
        about = rows.from_json(str(arrays.pop("architecture")))
        architecture = Architecture(**about | {"shape": tuple(about["shape"])})
        expected = architecture.variables()
    except FileNotFoundError:
        raise
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no model that scripts.pags.train saved, or is damaged ({error})") from error
    _check_same(path, _by_path(expected), arrays)
    leaves = [jnp.asarray(arrays[name]) for name in _by_path(expected)]
    return architecture.create(), jax.tree.unflatten(jax.tree.structure(expected), leaves)


def _by_path(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _check_same(path: Path, expected: dict[str, Any], arrays: dict[str, Any]) -> None:
    for name in {**expected, **arrays}:
        want, have = (
            f"{tree[name].dtype}{list(tree[name].shape)}" if name in tree else "none" for tree in (expected, arrays)
        )
        if want != have:
            raise ValueError(f"{path}: these weights are of another architecture ({name}: expected {want}, got {have})")
