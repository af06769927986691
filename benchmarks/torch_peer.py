"""LeNet, ResNet-18, their training steps and input gradients in PyTorch: the peer of ours.

The architectures are those of `pags_jax.models`, the losses those of `pags_jax.losses`: a ball for each example,
weights frozen in the attack, running statistics touched by the trained forward pass alone. Needs PyTorch.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import torch.nn.functional as F  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Classifier(nn.Module):
    """Layers, called in bfloat16 where asked; logits are float32."""

    def __init__(self, layers: nn.Module, precision: str):
        super().__init__()
        self.layers, self.precision = layers, precision

    def forward(self, x):
        """Logits ``(n, classes)``."""
        with torch.autocast(DEVICE, torch.bfloat16, enabled=self.precision == "bfloat16"):
            return self.layers(x).float()


class Block(nn.Module):
    """A residual block of two 3 x 3 convolutions."""

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        self.residual = nn.Sequential(
            *_convolved(channels, width, 3, stride), nn.ReLU(), *_convolved(width, width, 3, 1)
        )
        same = stride == 1 and channels == width
        self.shortcut = nn.Sequential(*([] if same else _convolved(channels, width, 1, stride)))

    def forward(self, x):
        """The block's output."""
        return F.relu(self.residual(x) + self.shortcut(x))


def _convolved(channels: int, width: int, size: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, width, size, stride, size // 2, bias=False), nn.BatchNorm2d(width)]


def create(name: str, *, classes: int, precision: str = "float32", channels_last: bool = False) -> Classifier:
    """Makes a classifier for 28 x 28 x 1 (lenet) or 32 x 32 x 3 images (resnet18); sets this process's precision."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.benchmark = True
    if name == "lenet":
        convolutions = [nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2)]
        dense = [nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Linear(128, classes)]
        layers = [*convolutions, *dense]
    else:
        layers = [*_convolved(3, 64, 3, 1), nn.ReLU()]
        for stage in range(4):
            width = 64 * 2**stage
            layers += [Block(width // 2 if stage else 64, width, 2 if stage else 1), Block(width, width, 1)]
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes)]
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = Classifier(nn.Sequential(*layers), precision)
    return model.to(DEVICE, memory_format=layout)  # pyright: ignore[reportCallIssue]


def images(x: np.ndarray, *, channels_last: bool = False) -> Any:
    """Images ``(n, h, w, c)`` as a tensor ``(n, c, h, w)`` on the device, in either layout."""
    tensor = torch.from_numpy(x).to(DEVICE).permute(0, 3, 1, 2)
    return tensor if channels_last else tensor.contiguous()


def labels(y: np.ndarray) -> Any:
    """Labels on the device."""
    return torch.from_numpy(y).long().to(DEVICE)


def wait() -> None:
    """Until the device has done its work."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def build() -> dict[str, Any]:
    """Which PyTorch, on which device, on how many threads (``OMP_NUM_THREADS``): columns of a row."""
    device = torch.cuda.get_device_name() if DEVICE == "cuda" else DEVICE
    threads = torch.get_num_threads()
    return {"torch_version": torch.__version__, "torch_device": device, "torch_threads": threads}


def cross_entropy(model, x, y, strength, draw=None):
    """Mean cross-entropy, and the logits that are trained on; the losses below likewise."""
    logits = model(x)
    return F.cross_entropy(logits, y), logits


def gradient_norm(model, x, y, strength, draw=None):
    """Adds the mean squared norm of the input gradients, by double backward."""
    x.requires_grad_()
    logits = model(x)
    total = F.cross_entropy(logits, y, reduction="sum")
    (by_x,) = torch.autograd.grad(total, x, create_graph=True)
    return (total + strength * by_x.square().sum()) / len(x), logits


def smoothness(model, x, y, strength, draw=None):
    """Adds how far noise moves the logits; ``draw`` replaces the noise."""
    logits = model(x)
    with _frozen_statistics(model):
        moved = model(x + 0.1 * (torch.randn_like(x) if draw is None else draw))
    return F.cross_entropy(logits, y) + strength * (logits - moved).square().sum() / len(x), logits


def randomized_smoothing(model, x, y, strength, draw=None):
    """Cross-entropy under noise; ``draw`` replaces the noise."""
    return cross_entropy(model, x + strength * (torch.randn_like(x) if draw is None else draw), y, strength)


def adversarial(model, x, y, strength, draw=None, *, steps):
    """Cross-entropy under an L2 attack of that radius, each example by itself; ``draw`` replaces the start."""
    delta = _start(x, strength) if draw is None else draw
    model.requires_grad_(False)
    with _frozen_statistics(model):
        for _ in range(steps):
            delta.requires_grad_()
            total = F.cross_entropy(model(x + delta), y, reduction="sum")
            (by_delta,) = torch.autograd.grad(total, delta)
            moved = delta.detach() + 2 * strength / steps * by_delta / _norms(by_delta)
            delta = moved * (strength / _norms(moved)).clamp_max(1)
    model.requires_grad_(True)
    return cross_entropy(model, x + delta, y, strength)


LOSSES: dict[str, Callable[..., Any]] = {
    "cross_entropy": cross_entropy,
    "gradient_norm": gradient_norm,
    "smoothness": smoothness,
    "randomized_smoothing": randomized_smoothing,
    "adversarial_3": partial(adversarial, steps=3),
    "adversarial_10": partial(adversarial, steps=10),
}


def sgd(model, rate: float) -> Any:
    """The reference's optimiser."""
    return torch.optim.SGD(model.parameters(), rate, momentum=0.9, weight_decay=5e-4)


def step(model, optimizer, loss, x, y, strength, draw=None):
    """One step on uint8 images; the loss, the accuracy and the norm of the gradient, on the device."""
    optimizer.zero_grad()
    value, logits = loss(model, x.float() / 255, y, strength, draw)
    value.backward()
    accuracy = (logits.argmax(1) == y).float().mean()
    norm = torch.nn.utils.get_total_norm([weight.grad for weight in model.parameters()])
    optimizer.step()
    return value.detach(), accuracy, norm


def input_gradients(model, x, y, target: str, *, backward: bool = False):
    """Input gradients in evaluation; ``backward`` computes those of the weights too and drops them, as the original."""
    x = (x.float() / 255).requires_grad_()
    logits = model(x)
    if target == "logit_sum":
        total = logits.sum()
    elif target == "logit":
        total = logits.gather(1, y[:, None]).sum()
    else:
        total = F.cross_entropy(logits, y, reduction="sum") * (1 if target == "loss" else -1)
    if not backward:
        return torch.autograd.grad(total, x)[0]
    total.backward()
    model.zero_grad()
    return x.grad


def load(model: Classifier, variables: Any) -> None:
    """Copies the variables of the flax twin, whose layers are numbered by kind in the order of this one's."""
    with torch.no_grad():
        for layer, scope in _layers(model):
            for name, value in _tensors(layer, scope, variables):
                getattr(layer, name).copy_(torch.from_numpy(value))


def saved(model: Classifier, variables: Any) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """Collection, name, flax's value in PyTorch's layout, and this model's, of everything in ``variables``."""
    for layer, scope in _layers(model):
        for name, value in _tensors(layer, scope, variables):
            kind = "batch_stats" if name.startswith("running") else "params"
            yield kind, ".".join((*scope, name)), value, getattr(layer, name).detach().cpu().numpy()


def _layers(model: nn.Module, scope: tuple[str, ...] = ()) -> Iterator[tuple[nn.Module, tuple[str, ...]]]:
    """Every layer with the path of its twin in flax's variables."""
    kinds = {nn.Conv2d: "Conv", nn.BatchNorm2d: "BatchNorm", nn.Linear: "Dense", Block: "Block"}
    counts: dict[str, int] = {}

    def visit(module):
        for child in module.children():
            kind = kinds.get(type(child))
            if kind is None:
                yield from visit(child)
                continue
            path = (*scope, f"{kind}_{counts.get(kind, 0)}")
            counts[kind] = counts.get(kind, 0) + 1
            if isinstance(child, Block):
                yield from _layers(child, path)
            else:
                yield child, path

    yield from visit(model)


def _tensors(layer: nn.Module, scope: tuple[str, ...], variables: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Names and values of a layer, from flax's layout to PyTorch's."""
    params, statistics = variables["params"], variables.get("batch_stats", {})
    for name in scope:
        params, statistics = params[name], statistics.get(name, {})
    if "kernel" in params:
        kernel = np.asarray(params["kernel"])
        if kernel.shape[0] == 9216:  # LeNet flattens maps here by row, column, channel, there by channel first.
            kernel = kernel.reshape(12, 12, 64, -1).transpose(2, 0, 1, 3).reshape(9216, -1)
        yield "weight", np.array(kernel.T if kernel.ndim == 2 else kernel.transpose(3, 2, 0, 1))
    names = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    for name, value in (*params.items(), *statistics.items()):
        if name in names:
            yield names[name], np.array(value)


@contextlib.contextmanager
def _frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Batch statistics are used, running ones stay as they are."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.track_running_stats = False
    yield
    for norm in norms:
        norm.track_running_stats = True


def _norms(v):
    return v.flatten(1).norm(dim=1).clamp_min(1e-30)[:, None, None, None]


def _start(x, eps: float):
    """Uniform in each example's ball."""
    direction = torch.randn_like(x)
    radius = torch.rand(len(x), 1, 1, 1, device=x.device) ** (len(x) / x.numel())
    return eps * radius * direction / _norms(direction)
