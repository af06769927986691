"""Weights of published networks: their names in PyTorch, and strict filling of a flax module's variables."""

import functools
import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pags_jax.models.edm import DhariwalUNet, SongUNet
from pags_jax.models.resnet import ResNet

_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
#: Names in ``PreActivationResNet``, and in the four published networks: first layers, a block, its layers, last ones.
_PREACTIVATION = {
    "deepmind-wide": (
        ("init_conv", "batchnorm", "logits"), "layer.{0}.block.{1}",
        ("batchnorm_0", "conv_0", "batchnorm_1", "conv_1", "shortcut"), 0,
    ),
    "deepmind": (
        ("conv_2d", "batchnorm", "logits"), "layer_{0}.{1}",
        ("batchnorm_0", "conv_2d_1", "batchnorm_1", "conv_2d_2", "shortcut"), 0,
    ),
    "trades-wide": (("conv1", "bn1", "fc"), "block{0}.layer.{1}", ("bn1", "conv1", "bn2", "conv2", "convShortcut"), 1),
    "robustbench": (("conv1", "bn", "linear"), "layer{0}.{1}", ("bn1", "conv1", "bn2", "conv2", "shortcut.0"), 1),
}  # fmt: skip
_RESNET = {"cifar": ("shortcut", "linear"), "imagenet": ("downsample", "fc")}

#: Whose names a file has.
FAMILIES = ("edm", *_PREACTIVATION, *_RESNET)


def tensor_shapes(model: nn.Module, family: str, channels: int = 3) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors that a publisher's file has for a network, but for counters of batches.

    Args:
      model: A network of the family.
      family: One of ``FAMILIES``.
      channels: Number of channels of the images.

    >>> from pags_jax.models.preactivation import PreActivationResNet
    >>> shapes = tensor_shapes(PreActivationResNet(classes=10), "deepmind-wide")
    >>> shapes["layer.1.block.0.shortcut.weight"]
    (320, 160, 1, 1)
    """
    shapes = variable_shapes(model, channels).items()
    found = {_name(model, family, path): _torch_shape(shape) for path, shape in shapes}
    return {**found, **{name: (1, 1, *array.shape[2:]) for name, array in filters(model).items()}}


def filters(model: nn.Module) -> dict[str, np.ndarray]:
    """The filters of EDM's networks, constants that their files hold for each layer that resamples."""
    if not isinstance(model, SongUNet | DhariwalUNet):
        return {}
    taps = np.asarray(model.taps if isinstance(model, SongUNet) else (1, 1), np.float64)
    square: np.ndarray = np.outer(taps, taps)[None, None] / taps.sum() ** 2
    names = {path[1] for path in variable_shapes(model, model.channels)}  # pyright: ignore[reportArgumentType]
    blocks = [name for name in names if name.endswith(("_down", "_up"))]
    aside = [f"{name}.resample_filter" for name in names if name.endswith("_aux_residual")]
    return dict.fromkeys(
        [f"{b}.{layer}.resample_filter" for b in blocks for layer in ("conv0", "skip")] + aside, square
    )


@functools.cache
def variable_shapes(model: nn.Module, channels: int) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Shapes of a network's variables by path; nothing is computed."""
    x = jax.ShapeDtypeStruct((1, 64, 64, channels), jnp.float32)
    tree = jax.eval_shape(model.init, jax.random.key(0), x)
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {tuple(part.key for part in path): leaf.shape for path, leaf in leaves}


def fill(
    model: nn.Module, family: str, arrays: Mapping[str, np.ndarray], *, channels: int, source: str, dtype: Any
) -> dict[str, Any]:
    """The variables of a network, from tensors of which each is used once and none is missing.

    Args:
      model: The network.
      family: Whose names the tensors have.
      arrays: The tensors.
      channels: Number of channels of the images.
      source: Name for messages.
      dtype: Dtype of the variables.

    Returns:
      The variables: nested dicts of arrays.

    Raises:
      ValueError: A tensor that is missing, left over, of another shape or type, or not finite.
    """
    try:
        expected = tensor_shapes(model, family, channels)
    except Exception as error:  # Whatever flax and JAX make of shapes that no network has.
        raise ValueError(f"{source}: no {_title(model)} has tensors of these shapes ({error})") from error
    if missing := expected.keys() - arrays.keys():
        raise ValueError(f"{source} lacks {_some(missing)} of the {len(expected)} tensors of this {_title(model)}")
    if more := arrays.keys() - expected.keys():
        raise ValueError(f"{source} has {_some(more)}, which this {_title(model)} does not have")
    for name, shape in expected.items():
        array = arrays[name]
        if array.shape != shape:
            raise ValueError(f"{source}: {name} has the shape {array.shape}, expected {shape}")
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(f"{source}: {name} is of the type {array.dtype}, expected floats")
    for name, square in filters(model).items():
        if not np.allclose(arrays[name], square, rtol=1e-3, atol=1e-6):
            raise ValueError(f"{source}: {name} is another filter than those of its first layer that resamples")
    variables: dict[str, Any] = {}
    for path in variable_shapes(model, channels):
        name = _name(model, family, path)
        array = np.asarray(arrays[name]).astype(dtype)
        if not np.isfinite(array).all():
            raise ValueError(f"{source}: {name} holds NaN or infinite values")
        axes = {4: (2, 3, 1, 0), 2: (1, 0)}.get(array.ndim, range(array.ndim))
        parent = functools.reduce(lambda tree, part: tree.setdefault(part, {}), path[:-1], variables)
        parent[path[-1]] = jnp.asarray(np.ascontiguousarray(array.transpose(axes)))
    return variables


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return {4: lambda i, j, c, k: (k, c, i, j), 2: lambda c, k: (k, c)}.get(len(shape), lambda *s: s)(*shape)


def _some(names: Any) -> str:
    names = sorted(names)
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _title(model: nn.Module) -> str:
    return type(model).__name__


def _name(model: nn.Module, family: str, path: tuple[str, ...]) -> str:
    *modules, leaf = path[1:]
    if family == "edm":
        return ".".join([*modules, _LEAVES.get(leaf, leaf)])
    if isinstance(model, ResNet):
        return f"{_resnet_name(model, family, modules)}.{_LEAVES[leaf]}"
    (name,) = modules
    (first, norm, last), block, layers, start = _PREACTIVATION[family]
    if found := re.fullmatch(r"stage(\d+)_block(\d+)_(\w+)", name):
        stage, number, layer = found.groups()
        layer = layers[("norm0", "conv0", "norm1", "conv1", "shortcut").index(layer)]
        name = f"{block.format(int(stage) + start, number)}.{layer}"
    else:
        name = {"conv": first, "norm": norm, "dense": last}[name]
    return f"{name}.{_LEAVES[leaf]}"


def _resnet_name(model: ResNet, family: str, modules: list[str]) -> str:
    shortcut, last = _RESNET[family]
    kind, _, number = modules[-1].partition("_")
    if len(modules) == 1:
        return {"Conv": "conv1", "BatchNorm": "bn1", "Dense": last}[kind]
    block = int(modules[0].removeprefix("Block_"))
    stage = 0
    while block >= model.blocks[stage]:
        block, stage = block - model.blocks[stage], stage + 1
    if int(number) == (3 if model.bottleneck else 2):
        layer = f"{shortcut}.{0 if kind == 'Conv' else 1}"
    else:
        layer = f"{'conv' if kind == 'Conv' else 'bn'}{int(number) + 1}"
    return f"layer{stage + 1}.{block}.{layer}"
