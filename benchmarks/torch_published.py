"""Published networks in PyTorch, with the names that their publishers' files have: peers of what we load.

ResNet-50 with ImageNet's or CIFAR-10's first layer (He et al. 2016), inside of what MadryLab's library saves with it,
and DeepMind's WideResNet (Gowal et al. 2020), after the descriptions in these papers and the names in the files. Needs
PyTorch.
"""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch  # pyright: ignore[reportMissingImports]
import torch.nn.functional as F  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]

from benchmarks.torch_peer import DEVICE

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 with the stride, 1 x 1 to four times the width; beside them a convolution where shapes change."""

    def __init__(self, channels: int, width: int, stride: int, beside: str):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.beside = beside
        if stride != 1 or channels != 4 * width:
            convolved = (nn.Conv2d(channels, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width))
            self.add_module(beside, nn.Sequential(*convolved))

    def forward(self, x):
        """The block's output."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu(out + (getattr(self, self.beside)(x) if hasattr(self, self.beside) else x))


class ResNet50(nn.Module):
    """Stages of 3, 4, 6 and 3 bottlenecks after a 7 x 7 convolution and maxima, or after a 3 x 3 one."""

    def __init__(self, classes: int, *, imagenet: bool):
        super().__init__()
        self.imagenet = imagenet
        size, stride = (7, 2) if imagenet else (3, 1)
        self.conv1, self.bn1 = nn.Conv2d(3, 64, size, stride, size // 2, bias=False), nn.BatchNorm2d(64)
        channels = 64
        for stage, count in enumerate((3, 4, 6, 3)):
            blocks = []
            for i in range(count):
                step = 2 if stage and not i else 1
                blocks.append(Bottleneck(channels, 64 * 2**stage, step, "downsample" if imagenet else "shortcut"))
                channels = 4 * 64 * 2**stage
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.add_module("fc" if imagenet else "linear", nn.Linear(channels, classes))

    def forward(self, x):
        """Logits of normalised images."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.max_pool2d(x, 3, 2, 1) if self.imagenet else x
        for stage in range(4):
            x = getattr(self, f"layer{stage + 1}")(x)
        return (self.fc if self.imagenet else self.linear)(x.mean((2, 3)))


class Normalizer(nn.Module):
    """Clips to [0, 1], then shifts and scales."""

    def __init__(self, mean, std):
        super().__init__()
        self.register_buffer("new_mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("new_std", torch.tensor(std)[:, None, None])

    def forward(self, x):
        """Normalised images."""
        return (x.clamp(0, 1) - self.new_mean) / self.new_std


class Attacked(nn.Module):
    """A network as MadryLab's library keeps it: with its normaliser, and both once more for its attacks."""

    def __init__(self, network: nn.Module, mean, std):
        super().__init__()
        self.normalizer, self.model, self.attacker = Normalizer(mean, std), network, nn.Module()
        self.attacker.normalize, self.attacker.model = Normalizer(mean, std), network

    def forward(self, x):
        """Logits of images in [0, 1]."""
        return self.model(self.normalizer(x))


class WideBlock(nn.Module):
    """Two normalised, activated 3 x 3 convolutions; the first pads below and to the right where its stride is 2."""

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        self.batchnorm_0, self.batchnorm_1 = nn.BatchNorm2d(channels), nn.BatchNorm2d(width)
        self.conv_0 = nn.Conv2d(channels, width, 3, stride, 1 if stride == 1 else 0, bias=False)
        self.conv_1 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(channels, width, 1, stride, bias=False) if channels != width else None

    def forward(self, x):
        """The block's output."""
        out = F.silu(self.batchnorm_0(x))
        beside = x if self.shortcut is None else self.shortcut(out)
        out = self.conv_0(F.pad(out, (0, 1, 0, 1)) if self.conv_0.stride == (2, 2) else out)
        return beside + self.conv_1(F.silu(self.batchnorm_1(out)))


class Stage(nn.Module):
    """Blocks of one width."""

    def __init__(self, channels: int, width: int, count: int, stride: int):
        super().__init__()
        made = [WideBlock(width if i else channels, width, 1 if i else stride) for i in range(count)]
        self.block = nn.Sequential(*made)

    def forward(self, x):
        """The stage's output."""
        return self.block(x)


class WideResNet(nn.Module):
    """DeepMind's: three stages, SiLU, and CIFAR-10's mean and deviation, which its files do not hold."""

    def __init__(self, depth: int, factor: int, classes: int):
        super().__init__()
        widths = [16, 16 * factor, 32 * factor, 64 * factor]
        self.init_conv = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.layer = nn.Sequential(
            *(Stage(widths[i], widths[i + 1], (depth - 4) // 6, 2 if i else 1) for i in range(3))
        )
        self.batchnorm, self.logits = nn.BatchNorm2d(widths[3]), nn.Linear(widths[3], classes)
        for name, values in zip(("mean", "std"), _CIFAR10, strict=True):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, x):
        """Logits of images in [0, 1]."""
        x = self.layer(self.init_conv((x - self.mean) / self.std))
        return self.logits(F.silu(self.batchnorm(x)).mean((2, 3)))


def create(name: str, *, seed: int, channels_last: bool = False) -> nn.Module:
    """A network with random weights and statistics, frozen, in evaluation, on the device.

    Args:
      name: "resnet50" (ImageNet), "engstrom" (ResNet-50 for CIFAR-10) or "wrn-28-10".
      seed: Seed of the draws.
      channels_last: How weights lie in memory.
    """
    torch.manual_seed(seed)
    if name == "wrn-28-10":
        model: nn.Module = WideResNet(28, 10, 10)
    elif name == "engstrom":
        model = Attacked(ResNet50(10, imagenet=False), *_CIFAR10)
    else:
        model = Attacked(ResNet50(1000, imagenet=True), *_IMAGENET)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for values in (layer.running_var, layer.weight):
                nn.init.uniform_(values, 0.5, 1.5)  # pyright: ignore[reportArgumentType]
            for values in (layer.running_mean, layer.bias):
                nn.init.uniform_(values, -0.5, 0.5)  # pyright: ignore[reportArgumentType]
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return model.eval().requires_grad_(False).to(DEVICE, memory_format=layout)  # pyright: ignore[reportCallIssue]


def save(model: nn.Module, path: Path, *, dtype: Any = None, zipped: bool = True) -> dict[str, Any]:
    """Writes a checkpoint as the publishers do, with names that begin with "module." and with more than the weights.

    Args:
      model: Model made by ``create``.
      path: Path of the file.
      dtype: Dtype of the floating point tensors in the file; by default as they are.
      zipped: PyTorch's present container instead of that of before 1.6.

    Returns:
      What was written of the model: tensors by name.
    """
    state = nn.DataParallel(model).state_dict()
    if dtype is not None:
        state = OrderedDict((n, t.to(dtype) if t.is_floating_point() else t) for n, t in state.items())
    entry = "model" if isinstance(model, Attacked) else "state_dict"
    content = {entry: state, "epoch": 7, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}, "amp": None}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return state
