"""Tangent bases, on- and off-manifold deviations and LPIPS in PyTorch: the peer of `pags_jax`'s measures.

Of each, the fastest that PyTorch offers, and what the reference's code does (tml-tuebingen/pags). Needs PyTorch.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg
import torch  # pyright: ignore[reportMissingImports]
import torch.nn.functional as F  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]

from benchmarks.torch_peer import DEVICE

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_ALEXNET = ((4, 2, False), (1, 2, True), (1, 1, True), (1, 1, False), (1, 1, False))


class Residual(nn.Module):
    """Adds two 3 x 3 convolutions, each after a SiLU."""

    def __init__(self, width: int):
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, 1, 1) for _ in range(2))

    def forward(self, x):
        """Shaped as ``x``."""
        return x + self.second(F.silu(self.first(F.silu(x))))


class Decoder(nn.Module):
    """The twin of `pags_jax.models.autoencoder.Decoder` for square images whose sides need no cutting."""

    def __init__(self, shape: tuple[int, int, int], latent: int, widths: tuple[int, ...]):
        super().__init__()
        self.places, self.last = shape[0] // 2 ** len(widths), widths[-1]
        self.dense = nn.Linear(latent, self.places**2 * self.last)
        self.residuals = nn.ModuleList([Residual(width) for width in widths[::-1]])
        pairs = zip(widths[::-1], widths[-2::-1], strict=False)
        self.finer = nn.ModuleList([nn.Conv2d(coarse, 4 * fine, 1) for coarse, fine in pairs])
        self.patches = nn.Conv2d(widths[0], 4 * shape[2], 3, 1, 1)

    def forward(self, z):
        """Images ``(n, c, h, w)`` in (0, 1)."""
        x = self.dense(z).reshape(-1, self.places, self.places, self.last).permute(0, 3, 1, 2)
        x = self.residuals[0](x)
        for finer, residual in zip(self.finer, list(self.residuals)[1:], strict=True):
            x = residual(from_patches(finer(x)))
        return torch.sigmoid(from_patches(self.patches(F.silu(x))))


def tensor(array: np.ndarray) -> Any:
    """An array on the device."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(DEVICE)


def from_patches(x):
    """Channels become 2 x 2 patches, the patch's place varying slower than the new channel."""
    n, channels, height, width = x.shape
    x = x.reshape(n, 2, 2, channels // 4, height, width)
    return x.permute(0, 3, 4, 1, 5, 2).reshape(n, channels // 4, 2 * height, 2 * width)


def decoder(params: Any, shape: tuple[int, int, int], latent: int, widths: tuple[int, ...], *, channels_last: bool):
    """A decoder with the parameters of flax's, whose layers are numbered by kind in the order of calls."""
    model = Decoder(shape, latent, widths)
    convolutions = [(f"Conv_{k}", layer) for k, layer in enumerate([*model.finer, model.patches])]
    residuals = [
        (f"Residual_{k}", f"Conv_{j}", layer)
        for k, residual in enumerate(model.residuals)
        for j, layer in enumerate((residual.first, residual.second))
    ]
    with torch.no_grad():
        for *scope, layer in [("Dense_0", model.dense), *convolutions, *residuals]:
            values = params
            for name in scope:
                values = values[name]
            kernel = np.array(values["kernel"])
            layer.weight.copy_(torch.from_numpy(kernel.T if kernel.ndim == 2 else kernel.transpose(3, 2, 0, 1)))
            layer.bias.copy_(torch.from_numpy(np.array(values["bias"])))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return model.to(DEVICE, memory_format=layout).eval()  # pyright: ignore[reportCallIssue]


def tangent_basis(decode: Callable[[Any], Any], z):
    """An orthonormal basis of each code's tangent space: forward products for all latents at once, then QR and SVD."""
    unit = torch.eye(z.shape[1], device=z.device)

    def columns(code):
        def push(tangent):
            return torch.func.jvp(lambda code: decode(code[None])[0], (code,), (tangent,))[1]

        return torch.vmap(push)(unit).flatten(1).T

    bases = []
    with torch.no_grad():
        for code in z:
            q, r = torch.linalg.qr(columns(code))
            u, values, _ = torch.linalg.svd(r, full_matrices=False)
            significant = values > torch.finfo(values.dtype).eps * max(len(q), len(r)) * values[0]
            bases.append(((q @ u) * significant).T)
    return torch.stack(bases)


def reference_tangent_basis(decode: Callable[[Any], Any], z):
    """A backward pass for each pixel, which also adds to the weights' gradients, then `scipy.linalg.orth`."""
    bases = []
    for code in z:
        code, rows = code[None].clone().requires_grad_(), []
        for pixel in decode(code).flatten():
            pixel.backward(retain_graph=True)
            assert code.grad is not None
            rows.append(code.grad[0].cpu().numpy())
            code.grad = None
        bases.append(scipy.linalg.orth(np.stack(rows)).T)
    return torch.from_numpy(np.stack(bases))


def manifold_robustness(model: nn.Module, x, basis, noise, eps):
    """Deviations ``(2, eps, n)``, all images, directions and lengths in one batch, without autograd."""
    with torch.inference_mode():
        u = noise.flatten(1)
        on = torch.einsum("nk,nkf->nf", torch.einsum("nkf,nf->nk", basis, u), basis)
        ways = torch.stack([on / on.norm(dim=1)[:, None], (u - on) / (u - on).norm(dim=1)[:, None]])
        points = x.flatten(1) + eps[None, :, None, None] * ways[:, None]
        batch = torch.cat([x.flatten(1)[None], points.flatten(0, 1)]).reshape(-1, *x.shape[1:])
        if x.is_contiguous(memory_format=torch.channels_last):
            batch = batch.contiguous(memory_format=torch.channels_last)
        p = torch.softmax(model(batch), 1).reshape(-1, len(x), 10)
        return (p[1:] - p[:1]).abs().sum(2).reshape(2, len(eps), len(x))


def reference_manifold_robustness(model: nn.Module, x, jacobians: np.ndarray, noise, eps):
    """One image and one length at a time, the Jacobian factorised anew by `scipy.linalg.orth`, autograd recording."""
    found = []
    for image, jacobian, draw in zip(x, jacobians, noise, strict=True):
        q = torch.from_numpy(scipy.linalg.orth(jacobian)).to(DEVICE)
        u = draw.flatten()
        on = q @ (q.T @ u)
        p = torch.softmax(model(image[None]), 1)
        ways = [part / part.norm() for part in (on, u - on)]
        moved = [[model((image.flatten() + e * way).reshape(1, *image.shape)) for e in eps] for way in ways]
        found.append([[float((torch.softmax(logits, 1) - p).abs().sum().detach()) for logits in row] for row in moved])
    return torch.tensor(found).permute(1, 2, 0)


class Lpips(nn.Module):
    """LPIPS 0.1 on AlexNet, with the weights that `pags_jax` reads."""

    def __init__(self, weights: Any, *, channels_last: bool):
        super().__init__()
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.kernels = [
            torch.from_numpy(layer.kernel.transpose(3, 2, 0, 1).copy()).to(DEVICE, memory_format=layout)
            for layer in weights
        ]
        self.biases = [torch.from_numpy(layer.bias.copy()).to(DEVICE) for layer in weights]
        self.linear = [torch.from_numpy(layer.linear.copy()).to(DEVICE)[None, :, None, None] for layer in weights]
        self.shift, self.scale = (torch.tensor(v, device=DEVICE)[None, :, None, None] for v in (_SHIFT, _SCALE))

    def forward(self, a, b):
        """Distances ``(n,)``, both images in one batch."""
        with torch.inference_mode():
            x, distance = (torch.cat([a, b]) - self.shift) / self.scale, torch.zeros(len(a), device=DEVICE)
            layers = zip(_ALEXNET, self.kernels, self.biases, self.linear, strict=True)
            for (stride, padding, pooled), kernel, bias, linear in layers:
                x = F.max_pool2d(x, 3, 2) if pooled else x
                x = F.relu(F.conv2d(x, kernel, bias, stride, padding))
                unit = x / (x.norm(dim=1, keepdim=True) + 1e-10)
                distance += (linear * (unit[: len(a)] - unit[len(a) :]) ** 2).sum(1).mean((1, 2))
            return distance

    def one_by_one(self, a, b):
        """The same, a pair at a time, as the reference calls it."""
        return torch.cat([self(a[k : k + 1], b[k : k + 1]) for k in range(len(a))])
