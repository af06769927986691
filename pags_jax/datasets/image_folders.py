"""Streams images from class folders, for sets that are too large for memory: ``folder/class/*.jpg``.

Reading, decoding and batching run in threads of ``grain``, which together with ``pillow`` is an optional dependency.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, UInt8

from pags_jax.datasets.reading import listed

ENDINGS = (".jpg", ".jpeg", ".png")


class FoundImages(NamedTuple):
    """The images of a folder, not read yet.

    Attributes:
      paths: n files, sorted by class, then by name.
      labels: ``(n,)``, the place of each file's folder in ``classes``.
      classes: names of the folders, sorted.
    """

    paths: tuple[Path, ...]
    labels: Int32[np.ndarray, " n"]
    classes: tuple[str, ...]


class Batch(NamedTuple):
    """One batch: images ``(b, size, size, 3)`` in 0..255, and labels ``(b,)``."""

    x: UInt8[np.ndarray, "b h w 3"]
    y: Int32[np.ndarray, " b"]


def find_images(folder: str | Path) -> FoundImages:
    """Lists the images (.jpg, .jpeg, .png) in the class folders of a folder, such as ImageNet's ``train``.

    Raises:
      ValueError: there is no such folder, it has no class folders, or one of these holds no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"no folder {folder}")
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise ValueError(f"{folder} has no class folders; expected {folder}/CLASS/*.jpg")
    files = [sorted(path for path in place.iterdir() if path.suffix.lower() in ENDINGS) for place in classes]
    empty = [place.name for place, found in zip(classes, files, strict=True) if not found]
    if empty:
        raise ValueError(f"no images ({', '.join(ENDINGS)}) in the class folders {listed(empty)} of {folder}")
    labels = np.repeat(np.arange(len(classes), dtype=np.int32), [len(found) for found in files])
    return FoundImages(tuple(path for found in files for path in found), labels, tuple(place.name for place in classes))


def read_image(path: Path, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Reads an image, cuts out the largest square in its middle and averages that down to ``size`` pixels.

    Averaging (a box filter) is what the ImageNet64x64 release used, there on the whole image.

    Raises:
      ValueError: the file is no image, or damaged.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            width, height = image.size
            side = min(width, height)
            left, top = (width - side) // 2, (height - side) // 2
            box = (left, top, left + side, top + side)
            resized = image.convert("RGB").resize((size, size), Image.Resampling.BOX, box=box)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is no image that can be read ({error}); replace it or leave it out") from error
    return np.asarray(resized)


def image_batches(
    found: FoundImages,
    *,
    batch_size: int,
    seed: int | None,
    size: int = 64,
    epochs: int | None = None,
    start: int = 0,
    threads: int = 8,
) -> Iterator[Batch]:
    """Streams batches of images.

    Batch k is the same for the same files and seed, whatever the number of threads: to resume after k batches, pass
    ``start=k``.

    Args:
      found: which images, see ``find_images``.
      batch_size: images in a batch.
      seed: of the order, anew every epoch, in whole batches: the images left over sit out this epoch. None keeps the
        order of the files and ends each epoch with a smaller batch, as for evaluation.
      size: height and width of the images, in pixels.
      epochs: how often to go through the images; None never ends.
      start: number of batches to skip.
      threads: that read ahead, a batch each.

    Returns:
      An iterator of ``Batch``.

    Raises:
      ValueError: a number out of range; ``grain`` or ``pillow`` is not installed; later, from the iterator: a file is
        no image.
    """
    grain = _import_grain()
    counts = {"batch_size": batch_size, "size": size, "threads": threads, "epochs": 1 if epochs is None else epochs}
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}")
    if seed is not None and not 0 <= seed < 2**32:
        raise ValueError(f"`seed` must be None or from 0 to 2^32 - 1, got {seed}")
    if seed is not None and batch_size > len(found.paths):
        raise ValueError(f"`batch_size` must be at most the number of images, {len(found.paths)}, got {batch_size}")

    def read(index):
        return Batch(read_image(found.paths[index], size), found.labels[index])

    order = grain.MapDataset.range(len(found.paths))
    if seed is not None:
        order = order.shuffle(seed=seed)
    batches = order.map(read).batch(batch_size, drop_remainder=seed is not None).repeat(epochs)
    if not 0 <= start <= len(batches):
        raise ValueError(f"`start` must be from 0 to the number of batches, {len(batches)}, got {start}")
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    return iter(batches.slice(slice(start, None)).to_iter_dataset(options))


def _import_grain():
    try:
        import grain
        import PIL  # noqa: F401 - said here, not by the first batch
    except ImportError as error:
        raise ValueError(f"streaming images needs grain and pillow ({error}): pip install grain pillow") from None
    return grain
