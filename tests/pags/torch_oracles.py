"""Published networks in NumPy, in float64, in PyTorch's layout and names: slow, and written from their descriptions.

Each is a function of a dict of tensors by name, which notes what it reads, and of images ``(n, c, h, w)``.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.special import expit, softmax


class Tensors(dict):
    """Tensors by name, in float64, and the names that were read."""

    def __init__(self, tensors):
        super().__init__({name: np.asarray(value, np.float64) for name, value in tensors.items()})
        self.used = set()

    def __getitem__(self, name):
        self.used.add(name)
        return super().__getitem__(name)


def silu(x):
    return x * expit(x)


def relu(x):
    return np.maximum(x, 0)


def convolve(x, kernel, bias=None, stride=1, padding=None):
    """Padding: of each side (above, below, left, right) or one for all; by default half of the kernel."""
    size = kernel.shape[-1]
    above, below, left, right = (size // 2,) * 4 if padding is None else padding
    x = np.pad(x, ((0, 0), (0, 0), (above, below), (left, right)))
    windows = sliding_window_view(x, kernel.shape[2:], axis=(2, 3))[:, :, ::stride, ::stride]
    out = np.einsum("nchwij,kcij->nkhw", windows, kernel, optimize=True)
    return out if bias is None else out + bias[:, None, None]


def batch_norm(x, t, name):
    mean, var, weight, bias = (
        t[f"{name}.{k}"][:, None, None] for k in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / np.sqrt(var + 1e-5) * weight + bias


def group_norm(x, t, name, epsilon):
    n, c = x.shape[:2]
    parts = x.reshape(n, min(32, c // 4), -1)
    parts = (parts - parts.mean(-1, keepdims=True)) / np.sqrt(parts.var(-1, keepdims=True) + epsilon)
    return parts.reshape(x.shape) * t[f"{name}.weight"][:, None, None] + t[f"{name}.bias"][:, None, None]


def linear(x, t, name):
    out = x @ t[f"{name}.weight"].T
    return out + t[f"{name}.bias"] if f"{name}.bias" in t else out


# -------------------------------------------------------------------------------------------------- classifiers
def resnet(t, x, *, blocks, last="linear", beside="shortcut"):
    x = convolve(x, t["conv1.weight"], stride=2 if t["conv1.weight"].shape[-1] == 7 else 1)
    x = relu(batch_norm(x, t, "bn1"))
    if t["conv1.weight"].shape[-1] == 7:
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
        x = sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::2, ::2].max((-2, -1))
    for stage, count in enumerate(blocks):
        for i in range(count):
            name, stride = f"layer{stage + 1}.{i}", 2 if stage and not i else 1
            layers = 3 if f"{name}.conv3.weight" in t else 2
            out = x
            for layer in range(1, layers + 1):
                strided = stride if layer == layers - 1 else 1  # The 3 x 3 one of three, the first of two.
                out = convolve(out, t[f"{name}.conv{layer}.weight"], stride=strided)
                out = batch_norm(out, t, f"{name}.bn{layer}")
                out = relu(out) if layer < layers else out
            if f"{name}.{beside}.0.weight" in t:
                x = batch_norm(convolve(x, t[f"{name}.{beside}.0.weight"], stride=stride), t, f"{name}.{beside}.1")
            x = relu(out + x)
    return linear(x.mean((2, 3)), t, last)


def deepmind_wide(t, x, *, blocks):
    x = convolve(x, t["init_conv.weight"])
    for stage, count in enumerate(blocks):
        for i in range(count):
            name, strided = f"layer.{stage}.block.{i}", stage > 0 and i == 0
            active = silu(batch_norm(x, t, f"{name}.batchnorm_0"))
            padding = (0, 1, 0, 1) if strided else None
            out = convolve(active, t[f"{name}.conv_0.weight"], stride=1 + strided, padding=padding)
            out = convolve(silu(batch_norm(out, t, f"{name}.batchnorm_1")), t[f"{name}.conv_1.weight"])
            if f"{name}.shortcut.weight" in t:
                x = convolve(active, t[f"{name}.shortcut.weight"], stride=1 + strided)
            x = x + out
    return linear(silu(batch_norm(x, t, "batchnorm")).mean((2, 3)), t, "logits")


def trades_wide(t, x, *, blocks):
    x = convolve(x, t["conv1.weight"])
    for stage, count in enumerate(blocks):
        for i in range(count):
            name, stride = f"block{stage + 1}.layer.{i}", 2 if stage and not i else 1
            active = relu(batch_norm(x, t, f"{name}.bn1"))
            out = convolve(active, t[f"{name}.conv1.weight"], stride=stride)
            out = convolve(relu(batch_norm(out, t, f"{name}.bn2")), t[f"{name}.conv2.weight"])
            if f"{name}.convShortcut.weight" in t:
                x = convolve(active, t[f"{name}.convShortcut.weight"], stride=stride)
            x = x + out
    return linear(relu(batch_norm(x, t, "bn1")).mean((2, 3)), t, "fc")


def deepmind_preact(t, x, *, blocks):
    x = convolve(x, t["conv_2d.weight"])
    for stage, count in enumerate(blocks):
        for i in range(count):
            name, strided = f"layer_{stage}.{i}", stage > 0 and i == 0
            padding = (0, 1, 0, 1) if strided else None
            out = silu(batch_norm(x, t, f"{name}.batchnorm_0"))
            out = convolve(out, t[f"{name}.conv_2d_1.weight"], stride=1 + strided, padding=padding)
            out = convolve(silu(batch_norm(out, t, f"{name}.batchnorm_1")), t[f"{name}.conv_2d_2.weight"])
            if f"{name}.shortcut.weight" in t:
                x = convolve(x, t[f"{name}.shortcut.weight"], stride=1 + strided, padding=padding)
            x = x + out
    return linear(silu(batch_norm(x, t, "batchnorm")).mean((2, 3)), t, "logits")


def robustbench_preact(t, x, *, blocks):
    activated = "bn.weight" in t
    x = convolve(x, t["conv1.weight"])
    for stage, count in enumerate(blocks):
        for i in range(count):
            name, stride = f"layer{stage + 1}.{i}", 2 if stage and not i else 1
            active = relu(batch_norm(x, t, f"{name}.bn1"))
            out = convolve(active, t[f"{name}.conv1.weight"], stride=stride)
            out = convolve(relu(batch_norm(out, t, f"{name}.bn2")), t[f"{name}.conv2.weight"])
            if f"{name}.shortcut.0.weight" in t:
                x = convolve(active if activated else x, t[f"{name}.shortcut.0.weight"], stride=stride)
            x = x + out
    x = relu(batch_norm(x, t, "bn")) if activated else x
    return linear(x.mean((2, 3)), t, "linear")


# ---------------------------------------------------------------------------------------------------- denoisers
def down(x, square, padding):
    """A strided convolution of each channel with the filter."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = sliding_window_view(x, square.shape, axis=(2, 3))[:, :, ::2, ::2]
    return np.einsum("nchwij,ij->nchw", windows, square)


def up(x, square):
    """The transposed convolution: each place writes the filter, times 4."""
    n, c, h, w = x.shape
    size, padding = square.shape[0], (square.shape[0] - 1) // 2
    out = np.zeros((n, c, 2 * h - 2 + size, 2 * w - 2 + size))
    for i, j in np.ndindex(size, size):
        out[:, :, i : i + 2 * h - 1 : 2, j : j + 2 * w - 1 : 2] += 4 * square[i, j] * x
    return out[:, :, padding : out.shape[2] - padding, padding : out.shape[3] - padding]


def unet_block(t, name, x, told, *, heads, scale, epsilon, adaptive):
    def resampled(x, layer):
        if f"{name}.{layer}.resample_filter" not in t:
            return x
        square = t[f"{name}.{layer}.resample_filter"][0, 0]
        return up(x, square) if name.endswith("_up") else down(x, square, (len(square) - 1) // 2)

    out = silu(group_norm(x, t, f"{name}.norm0", epsilon))
    out = convolve(resampled(out, "conv0"), t[f"{name}.conv0.weight"], t[f"{name}.conv0.bias"])
    moved = linear(told, t, f"{name}.affine")[:, :, None, None]
    if adaptive:
        by, plus = np.split(moved, 2, axis=1)
        out = silu(plus + group_norm(out, t, f"{name}.norm1", epsilon) * (by + 1))
    else:
        out = silu(group_norm(out + moved, t, f"{name}.norm1", epsilon))
    out = convolve(out, t[f"{name}.conv1.weight"], t[f"{name}.conv1.bias"])
    x = resampled(x, "skip")
    if f"{name}.skip.weight" in t:
        x = convolve(x, t[f"{name}.skip.weight"], t[f"{name}.skip.bias"])
    x = (out + x) * scale
    if f"{name}.qkv.weight" in t:
        n, c, h, w = x.shape
        parts = convolve(group_norm(x, t, f"{name}.norm2", epsilon), t[f"{name}.qkv.weight"], t[f"{name}.qkv.bias"])
        q, k, v = np.moveaxis(parts.reshape(n, heads(c), c // heads(c), 3, h * w), 3, 0)
        weight = softmax(np.einsum("ndcq,ndck->ndqk", q, k) / np.sqrt(c // heads(c)), axis=-1)
        out = np.einsum("ndqk,ndck->ndcq", weight, v).reshape(x.shape)
        x = (convolve(out, t[f"{name}.proj.weight"], t[f"{name}.proj.bias"]) + x) * scale
    return x


def denoised(t, x, sigma, labels, *, sizes, blocks, song, sigma_data=0.5):
    """EDM's preconditioned network; ``labels`` are rows of ones and zeros, or None."""
    total = np.sqrt(sigma**2 + sigma_data**2)
    noise = np.full(len(x), np.log(sigma) / 4)
    out = unet(t, x / total, noise, labels, sizes=sizes, blocks=blocks, song=song)
    return sigma_data**2 / total**2 * x + sigma * sigma_data / total * out


def unet(t, x, noise, labels, *, sizes, blocks, song):
    if "map_noise.freqs" in t:
        frequencies = 2 * np.pi * t["map_noise.freqs"]
    else:
        half = t["map_layer0.weight"].shape[1] // 2
        exponents = np.arange(half, dtype="f4") / np.float32(half - song)
        frequencies = (np.float32(1e-4) ** exponents).astype(float)
    angles = noise[:, None] * frequencies
    waves = [np.sin(angles), np.cos(angles)]
    told = np.concatenate(waves if song else waves[::-1], axis=1)
    if song:
        if labels is not None:
            told = told + linear(labels * np.sqrt(labels.shape[1]), t, "map_label")
        told = silu(linear(silu(linear(told, t, "map_layer0")), t, "map_layer1"))
    else:
        told = linear(silu(linear(told, t, "map_layer0")), t, "map_layer1")
        told = silu(told + (0 if labels is None else linear(labels, t, "map_label")))
    if "map_augment.weight" in t:
        t["map_augment.weight"]  # Left out in use.
    options = (
        {"heads": lambda c: 1, "scale": np.sqrt(0.5), "epsilon": 1e-6, "adaptive": False}
        if song
        else {"heads": lambda c: c // 64, "scale": 1, "epsilon": 1e-5, "adaptive": True}
    )
    skips, aside = [], x
    for size in sizes:
        name = f"enc.{size}x{size}"
        if size == sizes[0]:
            x = convolve(x, t[f"{name}_conv.weight"], t[f"{name}_conv.bias"])
        else:
            x = unet_block(t, f"{name}_down", x, told, **options)
            if f"{name}_aux_residual.weight" in t:
                square = t[f"{name}_aux_residual.resample_filter"][0, 0]
                kernel = t[f"{name}_aux_residual.weight"]
                aside = convolve(aside, kernel, padding=(1 + (len(square) - 1) // 2,) * 4)
                aside = down(aside, square, 0) + t[f"{name}_aux_residual.bias"][:, None, None]
                x = aside = (x + aside) / np.sqrt(2)
        skips.append(x)
        for i in range(blocks):
            x = unet_block(t, f"{name}_block{i}", x, told, **options)
            skips.append(x)
    for size in reversed(sizes):
        name = f"dec.{size}x{size}"
        for part in ("in0", "in1") if size == sizes[-1] else ("up",):
            x = unet_block(t, f"{name}_{part}", x, told, **options)
        for i in range(blocks + 1):
            x = unet_block(t, f"{name}_block{i}", np.concatenate([x, skips.pop()], axis=1), told, **options)
    norm, last = (f"{name}_aux_norm", f"{name}_aux_conv") if song else ("out_norm", "out_conv")
    x = silu(group_norm(x, t, norm, 1e-6 if song else 1e-5))
    return convolve(x, t[f"{last}.weight"], t[f"{last}.bias"])
