"""Models by name, their variables, and functions of images made from them."""

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from pags_jax.model_names import NAMES as NAMES
from pags_jax.model_names import Name as Name
from pags_jax.models.layers import Activation
from pags_jax.models.lenet import LeNet
from pags_jax.models.resnet import ResNet
from pags_jax.models.vgg import VGG

_MODELS: dict[str, Any] = {
    "lenet": LeNet,
    "resnet14": partial(ResNet, blocks=(2, 2, 2)),
    "resnet18": partial(ResNet, blocks=(2, 2, 2, 2)),
    "resnet34": partial(ResNet, blocks=(3, 4, 6, 3)),
    "resnet50": partial(ResNet, blocks=(3, 4, 6, 3), bottleneck=True),
    "vgg11": VGG,
}
#: The modules' classes, which files can hold.
CLASSES: tuple[type[nn.Module], ...] = tuple(dict.fromkeys(getattr(made, "func", made) for made in _MODELS.values()))


def create(
    name: str,
    *,
    classes: int,
    activation: str = "relu",
    beta: float = 20.0,
    stem: int = 3,
    width: float = 1.0,
    dtype: Any = None,
) -> nn.Module:
    """Makes a classifier by name.

    Args:
      name: One of ``NAMES``.
      classes: Number of classes, at least 2.
      activation: "relu", or "softplus" with ``beta``.
      beta: Sharpness of the softplus, > 0; the reference takes 20.
      stem: First layer of residual networks: 2 (patches) or 3 for small images, 7 for large ones.
      width: Multiplies the numbers of channels, > 0.
      dtype: What the layers compute in, such as ``jnp.bfloat16``; parameters and logits stay float32.

    Returns:
      The flax module.

    Raises:
      ValueError: An unknown name or a value out of range.

    >>> model = create("resnet18", classes=10)
    >>> variables = init(model, jnp.zeros((1, 32, 32, 3)), key=jax.random.key(0))
    >>> count_parameters(variables)
    11173962
    """
    if name not in NAMES:
        raise ValueError(f"unknown model {name!r}; known: {', '.join(NAMES)}")
    if not isinstance(classes, int | np.integer) or classes < 2:
        raise ValueError(f"`classes` must be at least 2, got {classes}")
    if activation not in get_args(Activation):
        raise ValueError(f"unknown activation {activation!r}; known: {', '.join(get_args(Activation))}")
    if not 0 < beta < math.inf:
        raise ValueError(f"`beta` must be finite and above 0, got {beta}")
    if not 0 < width < math.inf:
        raise ValueError(f"`width` must be finite and above 0, got {width}")
    if stem not in (2, 3, 7):
        raise ValueError(f"`stem` must be 2, 3 or 7, got {stem}")
    dtype = None if dtype is None else jnp.dtype(dtype)  # One spelling, so that equal modules have equal hashes.
    options = {"classes": classes, "width": width, "activation": activation, "beta": beta, "dtype": dtype}
    has_stem = "stem" in inspect.signature(_MODELS[name]).parameters
    if stem != 3 and not has_stem:
        raise ValueError(f"`stem` is a choice of residual networks, not of {name!r}")
    return _MODELS[name](**options, **({"stem": stem} if has_stem else {}))


def init(model: nn.Module, x: Shaped[Array | np.ndarray, "n h w c"], *, key: Array) -> dict[str, Any]:
    """Fresh variables for images shaped as ``x``: ``params``, and ``batch_stats`` of batch normalisation.

    Raises:
      ValueError: No flax.linen module, or images too small for it.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"the model must be a flax.linen module, got {type(model).__name__}; a model of another library (flax.nnx, "
            "equinox) is trained by its own loop, and measured here as a function of images"
        )
    return dict(_init(model, key, jnp.zeros((1, *x.shape[1:]), jnp.float32)))


@partial(jax.jit, static_argnums=0)
def _init(model: nn.Module, key: Array, x: Array) -> Any:
    return model.init(key, x, **mode(model, train=False))


#: What modules call the argument that tells training from evaluation, and its value in training.
_MODES = {"train": True, "training": True, "deterministic": False, "inference": False, "use_running_average": False}


def mode(model: nn.Module, *, train: bool) -> dict[str, Any]:
    """The argument that puts a flax.linen module into training mode, if it has one: ``train`` or one of its synonyms.

    >>> mode(LeNet(classes=2), train=True)
    {'train': True}
    """
    taken = inspect.signature(model.__call__).parameters
    return {name: value is train for name, value in _MODES.items() if name in taken}


def evaluator(model: nn.Module, variables: Any) -> Callable[[Any], Any]:
    """The classifier in evaluation: a function of images alone, each example by itself, with running statistics.

    It is a pytree, so that ``jit`` can take it as an argument and compile once for all variables of a model.
    """
    return jax.tree_util.Partial(_Evaluation(model), variables)


class _Evaluation(NamedTuple):
    """A module in evaluation, equal to that of an equal module."""

    model: nn.Module

    def __call__(self, variables: Any, x: Any) -> Any:
        return self.model.apply(variables, x, **mode(self.model, train=False))


def features(model: nn.Module, variables: Any, x: Any) -> Float[Array, "n d"]:
    """What a classifier in evaluation hands to its last dense layer, whose logits are linear in it.

    Args:
      model: A flax linen classifier, of ours or of yours, that ends in an ``nn.Dense``.
      variables: Its variables.
      x: Images ``(n, ...)``.

    Raises:
      ValueError: A model that calls no dense layer.

    >>> net, x = create("lenet", classes=3), jnp.ones((2, 28, 28, 1), jnp.float32)
    >>> variables = net.init(jax.random.key(0), x)
    >>> last = variables["params"]["Dense_1"]
    >>> found = features(net, variables, x)
    >>> np.allclose(found @ last["kernel"] + last["bias"][None], net.apply(variables, x), atol=1e-6)
    True
    """
    given = []

    def watch(call, inputs, named, context):
        if isinstance(context.module, nn.Dense):
            given.append(inputs[0])
        return call(*inputs, **named)

    with nn.intercept_methods(watch):
        model.apply(variables, x, **mode(model, train=False))
    if not given:
        raise ValueError(f"{type(model).__name__} calls no nn.Dense, so that it has no last dense layer")
    return given[-1]


def count_parameters(variables: Any) -> int:
    """Number of trained parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
