"""Architectures in plain values: what a network is for, which attributes it has, and which variables go with them."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

import flax.linen as nn
import jax
import jax.numpy as jnp

from pags_jax.models.autoencoder import Autoencoder
from pags_jax.models.edm import DhariwalUNet, SongUNet
from pags_jax.models.lenet import LeNet
from pags_jax.models.preactivation import Normalised, PreActivationResNet
from pags_jax.models.registry import CLASSES
from pags_jax.models.resnet import ResNet
from pags_jax.models.unet import UNet

Kind = Literal["classifier", "denoiser", "autoencoder"]

_DENOISERS = (UNet, SongUNet, DhariwalUNet)
_CLASSIFIERS = (*CLASSES, PreActivationResNet, Normalised)
#: Networks by what files call them.
NETWORKS: dict[str, type[nn.Module]] = {
    "denoiser": UNet,
    "autoencoder": Autoencoder,
    **{network.__name__: network for network in (*_CLASSIFIERS, SongUNet, DhariwalUNet)},
}
_FLAX_FIELDS = ("parent", "name")


def kind_of(model: Any) -> Kind:
    """What a network is for.

    Raises:
      ValueError: A network that no file can hold.
    """
    if type(model) in _DENOISERS:
        return "denoiser"
    if type(model) in _CLASSIFIERS:
        return "classifier"
    if type(model) is Autoencoder:
        return "autoencoder"
    known = ", ".join(network.__name__ for network in NETWORKS.values())
    raise ValueError(f"files hold networks of the classes {known}, got a {type(model).__name__}")


def facts(model: nn.Module, variables: Any) -> dict[str, Any]:
    """Facts that a network shows: kind, network, options, dtype, channels, classes, parameters and so on."""
    inner = model.network if isinstance(model, Normalised) else model
    arrays, kind = by_path(variables), kind_of(model)
    known: dict[str, Any] = {
        "kind": kind,
        "network": type(inner).__name__,
        "options": {name: getattr(inner, name) for name in _fields(inner) if name != "dtype"},
        "dtype": jnp.dtype(getattr(inner, "dtype", None) or jnp.float32).name,
        "channels": _channels(inner, arrays),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(variables["params"])),
        "tensors": len(arrays),
    }
    for name in ("classes", "resolution"):
        if hasattr(inner, name):
            known[name] = getattr(inner, name)
    if isinstance(model, Normalised):
        known["normaliser"] = {"mean": model.mean, "std": model.std, "clamp": model.clamp}
    elif kind == "classifier":
        known["normaliser"] = None
    return known


def _fields(model: nn.Module) -> list[str]:
    return [field.name for field in dataclasses.fields(model) if field.name not in _FLAX_FIELDS]  # pyright: ignore[reportArgumentType]


def described(model: Any) -> tuple[str, dict[str, Any]]:
    """A network's name and its attributes in plain values; a network within it likewise."""
    kind_of(model)  # Raises, if no file can hold it.
    network = next(name for name, made in NETWORKS.items() if type(model) is made)
    attributes = {name: getattr(model, name) for name in _fields(model)}
    if attributes.get("dtype") is None:
        attributes.pop("dtype", None)
    else:
        attributes["dtype"] = jnp.dtype(attributes["dtype"]).name
    return network, {n: list(described(v)) if isinstance(v, nn.Module) else v for n, v in attributes.items()}


def built(network: str, attributes: Mapping[str, Any]) -> nn.Module:
    """The module that ``described`` described.

    Raises:
      KeyError, TypeError, ValueError: No such network, or attributes that it does not have.
    """
    attributes = {name: _tuples(value) for name, value in attributes.items()}
    if "network" in attributes:
        attributes["network"] = built(*attributes["network"])
    if "dtype" in attributes:
        attributes["dtype"] = jnp.dtype(attributes["dtype"])
    check_choices(NETWORKS[network], attributes)
    return NETWORKS[network](**attributes)


def check_choices(network: type[nn.Module], attributes: Mapping[str, Any]) -> None:
    """Raises ValueError if an attribute is none of its choices: a network would take any other as one of them."""
    for name, kind in get_type_hints(network).items():
        if get_origin(kind) is Literal and name in attributes and attributes[name] not in get_args(kind):
            choices = ", ".join(map(repr, get_args(kind)))
            raise ValueError(f"`{name}` of a {network.__name__} must be one of {choices}, got {attributes[name]!r}")


def check_extent(model: nn.Module, arrays: int) -> None:
    """Raises ValueError if a network has more stages or blocks than arrays: nothing is built of so many."""
    inner: Any = model.network if isinstance(model, Normalised) else model
    blocks = getattr(inner, "blocks", ())
    counts = [sum(blocks) if isinstance(blocks, tuple) else blocks]
    values = (getattr(inner, name) for name in _fields(inner))
    counts += [len(jax.tree.leaves(value)) for value in values if isinstance(value, tuple)]
    if max(counts) > arrays:
        raise ValueError(f"{max(counts)} stages or blocks, and {arrays} arrays")


def _tuples(value: Any) -> Any:
    """JSON has lists where modules, which can be hashed, have tuples."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def shapes_of(model: Any, arrays: Mapping[str, Any], image_shape: Any = None) -> Any:
    """Types and shapes of a network's variables, without their values."""
    if image_shape is not None:
        shape = tuple(image_shape)
    elif isinstance(model, Autoencoder):
        shape = model.shape
    elif isinstance(model, LeNet):
        raise ValueError("the weights of a LeNet depend on the size of its images: pass their `image_shape`")
    else:
        shape = (64, 64, _channels(model.network if isinstance(model, Normalised) else model, arrays))
    return jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *shape), jnp.float32))


def _channels(model: Any, arrays: Mapping[str, Any]) -> int:
    """Channels of the images, as the network says them or as its first convolution takes them."""
    if isinstance(model, Autoencoder):
        return model.shape[-1]
    if hasattr(model, "channels"):
        return model.channels
    names = (f"params/{inside}{name}/kernel" for inside in ("", "network/") for name in ("conv", "Conv_0"))
    first = next((arrays[name] for name in names if name in arrays), None)
    channels = 3 if first is None else first.shape[-2]
    return channels // 4 if isinstance(model, ResNet) and model.stem == 2 else channels  # Of patches of 2 x 2 pixels.


def by_path(tree: Any) -> dict[str, Any]:
    """Leaves by their path, such as "params/Dense_0/bias"."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def check_shapes(source: str, expected: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    """Raises ValueError, which names the first difference, unless names and shapes are the expected ones."""
    for name in {**expected, **arrays}:
        want, have = (list(tree[name].shape) if name in tree else "none" for tree in (expected, arrays))
        if want != have:
            raise ValueError(f"{source}: weights of another architecture ({name}: expected {want}, got {have})")
