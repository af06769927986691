"""The idx format of MNIST: four bytes that say type and number of axes, the axes' lengths, then the entries.

Source: the MNIST database's own page, "File formats for the MNIST database". Numbers are big-endian; the type of
unsigned bytes is 8, the only one here.
"""

import math
import struct
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from pags_jax.datasets import reading

UNSIGNED_BYTE = 8
GZIP_MAGIC = b"\x1f\x8b"


def encode(array: UInt8[np.ndarray, "..."]) -> bytes:
    """Writes an array of at least one axis as idx.

    >>> encode(np.array([7, 9], np.uint8)).hex(" ")
    '00 00 08 01 00 00 00 02 07 09'
    """
    header = struct.pack(f">HBB{array.ndim}I", 0, UNSIGNED_BYTE, array.ndim, *array.shape)
    return header + np.ascontiguousarray(array).tobytes()


def decode(content: bytes, *, ndim: int, source: str) -> UInt8[np.ndarray, "..."]:
    """Reads an idx array of unsigned bytes.

    Args:
      content: The bytes, uncompressed.
      ndim: The number of axes that it must have: 3 for images, 1 for labels.
      source: Name for messages.

    Returns:
      The array, a read-only view of ``content``.

    Raises:
      ValueError: It is no idx, holds another type or number of axes, or has too few or too many bytes.
    """
    start = 4 + 4 * ndim
    expected = bytes([0, 0, UNSIGNED_BYTE, ndim])
    if content[:4] != expected:
        raise ValueError(
            f"{source} begins with the bytes {content[:4].hex(' ')!r}, expected {expected.hex(' ')!r} "
            f"(idx, unsigned bytes, {ndim} axes)"
        )
    if len(content) < start:
        raise ValueError(f"{source} is cut off: {len(content)} bytes, expected a header of {start} bytes")
    shape = struct.unpack(f">{ndim}I", content[4:start])
    if len(content) != start + math.prod(shape):
        raise ValueError(
            f"{source} is damaged or cut off: {len(content)} bytes, expected {start + math.prod(shape)} "
            f"for the shape {shape} in its header"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def read_content(path: Path) -> bytes:
    """Reads a file's bytes, decompressed if they are gzip.

    Raises:
      ValueError: There is no such file, or it is damaged.
    """
    content = reading.read_bytes(path)
    return reading.gunzip(content, source=str(path)) if content.startswith(GZIP_MAGIC) else content
