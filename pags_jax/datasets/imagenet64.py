"""ImageNet at 64 x 64 pixels, as released in npz batches: 1,281,167 train and 50,000 validation images.

A batch holds ``data``, uint8 ``(n, 12288)``, each row a red, a green and a blue plane, and ``labels`` from 1 to 1000.
Source: Chrabaszcz, Loshchilov and Hutter, *A Downsampled Variant of ImageNet as an Alternative to the CIFAR datasets*
(arXiv 1707.08819). ImageNet asks for a registration, so nothing is downloaded here.
"""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int32, UInt8

from pags_jax.datasets import reading
from pags_jax.datasets.labelled_images import Images, check_label_range

SIZE = 64
PIXELS = 3 * SIZE * SIZE
CLASSES = 1000
BATCHES = tuple(range(1, 11))
VALIDATION = "val_data.npz"
NAMES = "map_clsloc.txt"
"""A file of the release that names the classes, a line each: WordNet's number, the label, the name."""
ADVICE = "get the npz batches of ImageNet64x64 from https://image-net.org/download-images (needs an account)"


def read_arrays(path: Path, names: Sequence[str]) -> list[np.ndarray]:
    """Reads arrays of an npz file, never a pickle.

    Raises:
      FileNotFoundError: The file is missing.
      ValueError: It is damaged, or lacks an array.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            missing = [name for name in names if name not in arrays]
            if missing:
                raise KeyError(f"no array {reading.listed(missing)}, only {reading.listed(arrays)}")
            return [arrays[name] for name in names]
    except KeyError as error:
        raise ValueError(f"{path} has {error.args[0]}") from None
    except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged or cut off, or no npz of plain arrays ({error})") from error


def read_batch(path: Path) -> tuple[UInt8[np.ndarray, "n 64 64 3"], Int32[np.ndarray, " n"]]:
    """Reads one npz batch.

    Returns:
      Images ``(n, 64, 64, 3)`` and labels from 0 to 999, ``(n,)``.

    Raises:
      FileNotFoundError: The file is missing.
      ValueError: It is damaged, or holds other shapes, types or labels.
    """
    data, labels = read_arrays(path, ("data", "labels"))
    if data.ndim != 2 or data.shape[1] != PIXELS or not len(data) or data.dtype != np.uint8:
        raise ValueError(f"{path} has data {data.dtype} of the shape {data.shape}, expected uint8 (n, {PIXELS})")
    if labels.shape != data.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{path} has labels {labels.dtype} of the shape {labels.shape}, expected {len(data)} whole numbers"
        )
    check_label_range(labels, first=1, last=CLASSES, source=str(path))
    planes = data.reshape(-1, 3, SIZE, SIZE)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels.astype(np.int32) - np.int32(1)


def read_names(folder: Path) -> tuple[str, ...]:
    """Reads the names of the classes, or takes the release's labels "1" to "1000" where the file is not there.

    Raises:
      ValueError: The file names other classes.
    """
    path = folder / NAMES
    if not path.is_file():
        return tuple(str(label) for label in range(1, CLASSES + 1))
    lines = [line.split() for line in reading.read_bytes(path).decode("utf-8", errors="replace").splitlines()]
    names = {line[1]: line[2] for line in lines if len(line) == 3}
    if set(names) != {str(label) for label in range(1, CLASSES + 1)}:
        raise ValueError(f"{path} names {len(names)} classes, expected one line each for the labels 1 to {CLASSES}")
    return tuple(names[str(label)] for label in range(1, CLASSES + 1))


def load_imagenet64(folder: str | Path | None, *, batches: Sequence[int] = BATCHES) -> Images:
    """Reads train batches and the validation set, which becomes the test images.

    Args:
      folder: Holds ``train_data_batch_1.npz`` to ``_10.npz`` and ``val_data.npz``.
      batches: Which train batches; each is an arbitrary tenth of the train images, 1.6 GB in memory.

    Returns:
      The ``Images``.

    Raises:
      FileNotFoundError: A file is missing.
      ValueError: No folder, or unknown batches; a file is damaged, or holds other shapes, types or labels.
    """
    if folder is None:
        raise ValueError(f"'imagenet64' needs folder=; {ADVICE}")
    unknown = [batch for batch in batches if batch not in BATCHES]
    if unknown or len(set(batches)) != len(batches) or not batches:
        raise ValueError(
            f"`batches` must be different numbers from 1 to 10, at least one; got {reading.listed(batches)}"
        )
    folder = Path(folder)
    with reading.advising(ADVICE):
        names = read_names(folder)
        test = read_batch(folder / VALIDATION)
        train = [read_batch(folder / f"train_data_batch_{batch}.npz") for batch in batches]
    train_x, train_y = (np.concatenate(parts) for parts in zip(*train, strict=True))
    return Images(train_x, train_y, *test, names)
