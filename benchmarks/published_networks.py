"""Networks of published sizes with random weights, which the benchmark of them measures."""

from typing import Any, Literal

import flax.linen as nn
import jax
import numpy as np

from pags_jax import models
from pags_jax.models import architectures

Model = Literal["resnet50", "engstrom", "wrn-28-10", "edm-cifar10", "edm-cifar10-cond", "edm-imagenet64"]
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), True)
_CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), True)
_WRN = ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616), False)


def network(name: Model) -> nn.Module:
    """The module of a published network."""
    fifty: dict[str, Any] = {"blocks": (3, 4, 6, 3), "bottleneck": True}
    adm: dict[str, Any] = {"multipliers": (1, 2, 3, 4), "blocks": 3, "attention": (32, 16, 8)}
    return {
        "resnet50": lambda: models.Normalised(models.ResNet(classes=1000, stem=7, **fifty), *_IMAGENET),
        "engstrom": lambda: models.Normalised(models.ResNet(classes=10, **fifty), *_CIFAR10),
        "wrn-28-10": lambda: models.Normalised(models.wide_resnet(28, 10, classes=10), *_WRN),
        "edm-cifar10": lambda: models.SongUNet(augment=9),
        "edm-cifar10-cond": lambda: models.SongUNet(augment=9, classes=10),
        "edm-imagenet64": lambda: models.DhariwalUNet(classes=1000, resolution=64, width=192, **adm),
    }[name]()


def random_variables(model: nn.Module, seed: int) -> Any:
    """Weights of variance one over what they sum, and statistics near those of normalised maps."""
    draw = np.random.default_rng(seed)

    def leaf(path: Any, shape: Any) -> np.ndarray:
        name = path[-1].key
        if name in ("scale", "var"):
            return draw.uniform(0.5, 1.5, shape.shape).astype(np.float32)
        fan_in = max(1, int(np.prod(shape.shape[:-1])))
        return draw.standard_normal(shape.shape, np.float32) / np.float32(np.sqrt(fan_in if name == "kernel" else 100))

    return jax.tree_util.tree_map_with_path(leaf, architectures.shapes_of(model, {}))
