"""Networks in files: ``save`` writes a classifier, a denoiser or an autoencoder, and ``load`` reads it.

A file is safetensors: arrays by their path in the variables, in float32 or float16, and as metadata the architecture
(the module's class and its attributes), what is known of the network, and a SHA-256 of it all. It holds no code, and
reading it runs none. The metadata are one entry, sorted JSON, because safetensors writes several in an order that
differs from process to process: the same network makes the same bytes.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from pags_jax.datasets import reading
from pags_jax.models import architectures
from pags_jax.models.architectures import Kind

SUFFIX = ".safetensors"
_METADATA = "pags_jax"


class Pretrained(NamedTuple):
    """A trained network.

    Attributes:
      model: The flax module: of images in [0, 1] for a classifier or an autoencoder, the raw network for a denoiser.
      variables: Its variables.
      about: What is known of it, in plain values.
    """

    model: Any
    variables: dict[str, Any]
    about: dict[str, Any]


def save(
    path: str | Path,
    model: Any,
    variables: Any,
    about: Mapping[str, Any],
    *,
    image_shape: tuple[int, ...] | None = None,
    dtype: Literal["float32", "float16"] = "float32",
) -> Path:
    """Writes a network atomically: the file is complete or absent.

    Args:
      path: Path of the file, ending in ``.safetensors``; missing folders are made, and a file that is there is
        replaced.
      model: What ``models.create`` or ``models.read_pretrained`` makes, a ``models.UNet`` or a ``models.Autoencoder``.
      variables: Its variables.
      about: What to say of it, such as how it was trained: plain values by name.
      image_shape: Height, width and channels of its images. A LeNet needs it, whose weights depend on it.
      dtype: What to store the arrays in; float16 halves the file and rounds to three decimal digits.

    Returns:
      The path.

    Raises:
      ValueError: Another ending, another kind of network, variables that are not its own, or values that are not finite
        in ``dtype``.
      OSError: The file cannot be written; what was there before is as it was.

    >>> import tempfile
    >>> from pags_jax import models
    >>> model = models.create("lenet", classes=10)
    >>> variables = models.init(model, jnp.zeros((1, 28, 28, 1)), key=jax.random.key(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save(f"{folder}/lenet.safetensors", model, variables, {"epochs": 0}, image_shape=(28, 28, 1))
    ...     load(path).model == model, load(path).about
    (True, {'epochs': 0})
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        raise ValueError(f"networks are saved as {SUFFIX}, got {path.name!r}")
    network, attributes = architectures.described(model)
    arrays = architectures.by_path(variables)
    expected = architectures.by_path(architectures.shapes_of(model, arrays, image_shape))
    architectures.check_shapes("these variables", expected, arrays)
    with np.errstate(over="ignore"):
        arrays = {name: np.ascontiguousarray(np.asarray(array).astype(dtype)) for name, array in arrays.items()}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds values that are not finite in {dtype}")
    metadata = {"kind": network, "architecture": _text(attributes), "about": _text(dict(about))}
    if image_shape is not None:
        metadata["image_shape"] = _text(list(image_shape))
    metadata["sha256"] = _digest(arrays, metadata)
    write(path, lambda temporary: save_file(arrays, temporary, {_METADATA: _text(metadata)}))
    return path


def load(path: str | Path, *, kind: Kind | None = None) -> Pretrained:
    """Reads a network that ``save`` wrote.

    Args:
      path: Path of the file.
      kind: "classifier", "denoiser" or "autoencoder", if it must be one; by default it may be any.

    Returns:
      The module, its variables in float32, and what the file says of it.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: The file is damaged, holds something else, or weights of another architecture than it says.
    """
    path = Path(path)
    arrays, metadata, _ = _read(path)
    network = metadata["kind"]
    attributes, description = (_parsed(path, name, metadata) for name in ("architecture", "about"))
    image_shape = _parsed(path, "image_shape", {"image_shape": "null", **metadata})
    if network not in architectures.NETWORKS:
        raise ValueError(f"{path} holds a network of a class that this version does not know: {network!r}")
    try:
        model = architectures.built(network, attributes)
        architectures.check_extent(model, len(arrays))
        expected = architectures.shapes_of(model, arrays, image_shape)
    except Exception as error:  # Whatever flax and JAX make of attributes that no network has.
        raise ValueError(
            f"{path} holds a {network} that this version cannot build: {str(attributes)[:500]} ({error})"
        ) from error
    if kind is not None and architectures.kind_of(model) != kind:
        raise ValueError(f"{path} holds a network of another kind: expected {kind}, got {architectures.kind_of(model)}")
    paths = architectures.by_path(expected)
    architectures.check_shapes(str(path), paths, arrays)
    leaves = [jnp.asarray(arrays[name], jnp.float32) for name in paths]
    variables = jax.tree.unflatten(jax.tree.structure(expected), leaves)
    return Pretrained(model, variables, description)


def read(path: str | Path) -> tuple[dict[str, np.ndarray], str]:
    """The arrays of a file that ``save`` wrote, as they are stored, by name, and the SHA-256 that it says of all of it.

    Raises:
      FileNotFoundError, ValueError: As ``load``.
    """
    arrays, _, sha256 = _read(Path(path))
    return arrays, sha256


def about(path: str | Path) -> dict[str, Any]:
    """Reads the description that a file holds of its network.

    Raises:
      FileNotFoundError, ValueError: As ``load``.
    """
    return _parsed(Path(path), "about", _read(Path(path))[1])


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str], str]:
    """Arrays, metadata and SHA-256 of a file that ``save`` wrote, and that nothing has changed since."""
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    with reading.advising("get it again, or train it anew"):
        try:
            with safe_open(path, framework="numpy") as file:
                entries = file.metadata() or {}
                metadata = dict(_parsed(path, _METADATA, entries)) if _METADATA in entries else {}
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
            raise ValueError(f"{path} is damaged or no safetensors file ({error})") from error
        stated = metadata.pop("sha256", None)
        if stated is None or not {"kind", "architecture", "about"} <= set(metadata):
            raise ValueError(
                f"{path} is no network that this package saved: it lacks the metadata; publishers' files are read as "
                "they are, .pt, .ckpt or .pkl"
            )
        if any(not isinstance(text, str) for text in (stated, *metadata.values())):
            raise ValueError(f"{path} is damaged: its metadata are no texts")
        if stated != _digest(arrays, metadata):
            raise ValueError(f"{path} is damaged: its contents have not the SHA-256 {stated} that it says")
    return arrays, metadata, stated


def _parsed(path: Path, name: str, metadata: Mapping[str, str]) -> Any:
    try:
        return json.loads(metadata[name])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: its {name} is no JSON ({error})") from error


def write(path: Path, fill: Callable[[Path], Any]) -> None:
    """Writes a temporary file beside it, flushes it to the disk, and renames it to its name, which is flushed as well.

    Args:
      path: Path of the file.
      fill: Writes the temporary file, whose path it is given.

    Raises:
      OSError: The file cannot be written; what was there before is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}"[:200])
    try:
        temporary.touch()
        permissions = temporary.stat().st_mode  # The user's; safetensors makes files that nobody else can read.
        fill(temporary)
        temporary.chmod(permissions)
        flush(temporary)
        temporary.replace(path)
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written ({error})") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    flush(path.parent)


def flush(path: Path) -> None:
    """Waits until a file, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(dict(sorted(metadata.items()))).encode())
    for name in sorted(arrays):
        digest.update(f"\0{name} {arrays[name].dtype} {arrays[name].shape}\0".encode())
        digest.update(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _text(values: Any) -> str:
    return json.dumps(values, sort_keys=True)
