"""Image sets laid out like MNIST: four idx files, in a folder or downloaded."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int32, UInt8

from pags_jax.datasets import idx, reading
from pags_jax.datasets.labelled_images import Images, check_label_range

STEMS = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
"""Names of the four files, without ``.gz``."""
SIZE = 28
"""Height and width of the images, in pixels."""


@dataclasses.dataclass(frozen=True)
class IdxSet:
    """A published image set of four gzipped idx files.

    Attributes:
      name: The set's name, and its folder in the cache.
      address: Where the files lie, with a slash at the end.
      sha256: SHA-256 of each file there, ``{stem}.gz``, as published (compressed).
      classes: What each label means.
    """

    name: str
    address: str
    sha256: Mapping[str, str]
    classes: tuple[str, ...]


def find_file(folder: Path, stem: str) -> Path:
    """Finds an idx file, plain or gzipped, under its name or with a dot before "idx" as some unpackers write it.

    Raises:
      FileNotFoundError: It is not there.
    """
    names = [f"{name}{end}" for name in (stem, stem.replace("-idx", ".idx")) for end in ("", ".gz")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"no file {folder / stem}.gz (looked in {folder} for {reading.listed(names)})")


def read_split(
    folder: Path, split: Literal["train", "t10k"], *, classes: int, content_sha256: Mapping[str, str] | None = None
) -> tuple[UInt8[np.ndarray, "n h w 1"], Int32[np.ndarray, " n"]]:
    """Reads one half of an image set.

    Args:
      folder: Where the files lie.
      split: "train", or "t10k", the test images.
      classes: Number of classes.
      content_sha256: SHA-256 (hex) of each file's bytes after decompression, by stem; None checks none.

    Returns:
      Images ``(n, 28, 28, 1)`` and labels ``(n,)``.

    Raises:
      FileNotFoundError: A file is missing.
      ValueError: One is damaged, of another shape or checksum, or holds labels out of range.
    """
    arrays, sources = [], []
    for stem, ndim in ((f"{split}-images-idx3-ubyte", 3), (f"{split}-labels-idx1-ubyte", 1)):
        path = find_file(folder, stem)
        content = idx.read_content(path)
        if content_sha256 is not None:
            reading.check_sha256(content, content_sha256[stem], source=str(path))
        arrays.append(idx.decode(content, ndim=ndim, source=str(path)))
        sources.append(path)
    x, y = arrays
    if not len(x) or x.shape[1:] != (SIZE, SIZE):
        raise ValueError(f"{sources[0]} has the shape {x.shape}, expected (n, {SIZE}, {SIZE}) with n at least 1")
    if len(y) != len(x):
        raise ValueError(
            f"{sources[1]} has {len(y)} labels, expected {len(x)}, one for each image of {sources[0].name}"
        )
    check_label_range(y, first=0, last=classes - 1, source=str(sources[1]))
    return x[..., None].copy(), y.astype(np.int32)


def read_folder(folder: Path, *, classes: tuple[str, ...], content_sha256: Mapping[str, str] | None = None) -> Images:
    """Reads the four files of a folder; see ``read_split``."""
    train = read_split(folder, "train", classes=len(classes), content_sha256=content_sha256)
    test = read_split(folder, "t10k", classes=len(classes), content_sha256=content_sha256)
    return Images(*train, *test, classes)


def download_files(idx_set: IdxSet) -> Path:
    """Downloads the four files into the user's cache, or finds them there; returns their folder.

    Raises:
      ValueError: A download fails.
    """
    addresses = {stem: f"{idx_set.address}{stem}.gz" for stem in STEMS}
    paths = [reading.download(addresses[stem], sha256=idx_set.sha256[stem], to=idx_set.name) for stem in STEMS]
    return paths[0].parent


def load_idx_set(idx_set: IdxSet, folder: str | Path | None) -> Images:
    """Reads a published image set from a folder of the user's, or downloads it first.

    Raises:
      ValueError: See ``read_split``; or a download fails.
    """
    folder = download_files(idx_set) if folder is None else Path(folder)
    with reading.advising(f"get the files of {idx_set.name} from {idx_set.address}"):
        return read_folder(folder, classes=idx_set.classes)
