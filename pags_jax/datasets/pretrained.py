"""Trained denoisers and autoencoders in files, and the two that come with the package.

A file is safetensors: arrays by their path in the variables, in float32 or float16, and as metadata the architecture,
what is known of the training, and a SHA-256 of it all. It holds no code, and reading it runs none. The metadata are one
entry, sorted JSON, because safetensors writes several in an order that differs from process to process: the same model
makes the same bytes. Files from before that, with an entry for each, are read as well.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from pags_jax.datasets import reading
from pags_jax.models import Autoencoder, DhariwalUNet, Normalised, PreActivationResNet, ResNet, SongUNet, UNet

FILES = Path(__file__).resolve().parent / "files"
_KINDS: dict[str, type[nn.Module]] = {
    "denoiser": UNet,
    "autoencoder": Autoencoder,
    **{kind.__name__: kind for kind in (ResNet, PreActivationResNet, Normalised, SongUNet, DhariwalUNet)},
}
_METADATA = "pags_jax"
_FLAX_FIELDS = ("parent", "name")

Model = tuple[Any, dict[str, Any]]


def fashion_mnist_denoiser() -> Model:
    """A denoiser of Fashion-MNIST, with and without classes, for ``scores.denoiser``.

    Returns:
      The ``models.UNet`` and its variables.

    >>> model, variables = fashion_mnist_denoiser()
    >>> model.classes
    10
    """
    return load_denoiser(FILES / "fashion_mnist_denoiser.safetensors")


def fashion_mnist_autoencoder() -> Model:
    """An autoencoder of Fashion-MNIST, for ``models.encoder`` and ``models.decoder``.

    Returns:
      The ``models.Autoencoder`` and its variables.

    >>> model, variables = fashion_mnist_autoencoder()
    >>> model.shape
    (28, 28, 1)
    """
    return load_autoencoder(FILES / "fashion_mnist_autoencoder.safetensors")


def load_denoiser(path: str | Path) -> Model:
    """Reads a denoiser that ``pack`` packed.

    Args:
      path: of the file.

    Returns:
      The module, and its variables in float32.

    Raises:
      ValueError: there is no such file, it is damaged, or it holds something else.
    """
    return _load(Path(path), "denoiser")


def load_autoencoder(path: str | Path) -> Model:
    """Reads an autoencoder; see ``load_denoiser``."""
    return _load(Path(path), "autoencoder")


def about(path: str | Path) -> dict[str, Any]:
    """What a file says of the training of its model.

    Raises:
      ValueError: as ``load_denoiser``.
    """
    return json.loads(_read(Path(path))[1]["about"])


def pack(
    model: nn.Module, variables: Any, about: Mapping[str, Any], *, dtype: Literal["float32", "float16"] = "float32"
) -> bytes:
    """Makes the content of a file.

    Args:
      model: a ``models.UNet``, a ``models.Autoencoder``, or what ``models.read_pretrained`` gives.
      variables: of it.
      about: what to say of its training: plain values by name.
      dtype: what to keep the arrays in; float16 halves the file and rounds to three decimal digits.

    Returns:
      The bytes, for a file whose name ends in ``.safetensors``.

    Raises:
      ValueError: another kind of model, variables that are not its own or, in float16, too large.
    """
    kind, options = _described(model)
    arrays = _by_path(variables)
    _check_shapes("these variables", _by_path(_shapes(model, arrays)), arrays)
    with np.errstate(over="ignore"):
        arrays = {name: np.asarray(array).astype(dtype) for name, array in arrays.items()}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds values that are not finite in {dtype}")
    said = json.dumps(dict(about), sort_keys=True)
    metadata = {"kind": kind, "architecture": json.dumps(options, sort_keys=True), "about": said}
    metadata["sha256"] = _digest(arrays, metadata)
    return save(arrays, {_METADATA: json.dumps(metadata, sort_keys=True)})


def load_network(path: str | Path) -> Model:
    """Reads a network of any kind that ``pack`` packed; see ``load_denoiser``."""
    return _load(Path(path), None)


def _load(path: Path, kind: str | None) -> Model:
    arrays, metadata = _read(path)
    if metadata["kind"] != (kind or metadata["kind"]):
        raise ValueError(f"{path} holds the model of another kind: expected {kind}, got {metadata['kind']}")
    kind, options = metadata["kind"], json.loads(metadata["architecture"])
    try:
        model = _built(kind, options)
        expected = _shapes(model, arrays)
    except (TypeError, ValueError, KeyError, IndexError, ZeroDivisionError) as error:
        raise ValueError(f"{path} holds a {kind} that this version cannot build: {options} ({error})") from error
    _check_shapes(str(path), _by_path(expected), arrays)
    leaves = [jnp.asarray(arrays[name], jnp.float32) for name in _by_path(expected)]
    return model, jax.tree.unflatten(jax.tree.structure(expected), leaves)


def _described(model: Any) -> tuple[str, dict[str, Any]]:
    """The kind of a model and its attributes in plain values; a network within it likewise."""
    kind = next((kind for kind, made in _KINDS.items() if type(model) is made), None)
    if kind is None:
        raise ValueError(f"expected a UNet, an Autoencoder or a published network, got a {type(model).__name__}")
    fields = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}
    options = {name: value for name, value in fields.items() if name not in _FLAX_FIELDS and name != "dtype"}
    return kind, {n: list(_described(v)) if isinstance(v, nn.Module) else v for n, v in options.items()}


def _built(kind: str, options: Mapping[str, Any]) -> nn.Module:
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    if "network" in options:
        options["network"] = _built(*options["network"])
    return _KINDS[kind](**options)


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and metadata of a file that ``pack`` packed, and that nothing has changed since."""
    if not path.is_file():
        raise ValueError(f"no file {path}")
    with reading.advising("get it again, or train it anew"):
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = dict(file.metadata() or {})
                metadata = dict(json.loads(metadata[_METADATA])) if _METADATA in metadata else metadata
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
            raise ValueError(f"{path} is damaged or no safetensors file ({error})") from error
        said = metadata.pop("sha256", None)
        if said is None or not {"kind", "architecture", "about"} <= set(metadata):
            raise ValueError(f"{path} is no model of this package: it lacks the metadata")
        if said != _digest(arrays, metadata):
            raise ValueError(f"{path} is damaged: its contents have not the SHA-256 {said} that it says")
    return arrays, metadata


def _digest(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(dict(sorted(metadata.items()))).encode())
    for name in sorted(arrays):
        digest.update(f"\0{name} {arrays[name].dtype} {arrays[name].shape}\0".encode() + arrays[name].tobytes())
    return digest.hexdigest()


def _shapes(model: Any, arrays: Mapping[str, Any] | None = None) -> Any:
    """Types and shapes of a model's variables, without their values; ``arrays`` tell the channels of its images."""
    if isinstance(model, Autoencoder):
        shape = model.shape
    elif isinstance(model, UNet):
        shape = (2, 2, model.channels)
    else:  # Classifiers: what their first convolution takes.
        names = (f"params/{inside}{name}/kernel" for inside in ("", "network/") for name in ("conv", "Conv_0"))
        first = next((arrays[name] for name in names if name in arrays), None) if arrays else None
        shape = (64, 64, getattr(model, "channels", 3 if first is None else first.shape[2]))
    return jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *shape), jnp.float32))


def _by_path(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _check_shapes(source: str, expected: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    for name in {**expected, **arrays}:
        want, have = (list(tree[name].shape) if name in tree else "none" for tree in (expected, arrays))
        if want != have:
            raise ValueError(f"{source}: weights of another architecture ({name}: expected {want}, got {have})")
