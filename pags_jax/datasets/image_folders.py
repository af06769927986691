"""Streams images from class folders, for sets that are too large for memory: ``folder/class/**/*.jpg``.

Every file is converted to three colours of 8 bits while it is read: of 16 bits the upper eight are kept
(``value // 256``); grey, palettes, bits and inks (CMYK, by Pillow's formula, without a colour profile) become colours;
a picture is turned upright by its EXIF orientation, as viewers show it (torchvision does not); an animation gives its
first picture. Pixels that are not opaque have no colour of their own, and such files are refused.

Reading, decoding and batching run in threads of ``grain``, which together with ``pillow`` is an optional dependency.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32, UInt8

from pags_jax.datasets.reading import listed

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
UNREAD = (".tif", ".tiff", ".gif", ".heic", ".avif", ".jp2", ".jxl", ".ppm", ".pgm")
"""Endings of images that are refused, not passed over."""


class FoundImages(NamedTuple):
    """The images of a folder, not read yet.

    Attributes:
      paths: n files, by class, then sorted by path.
      labels: ``(n,)``, the place of each file's folder in ``classes``.
      classes: Names of the folders.
    """

    paths: tuple[Path, ...]
    labels: Int32[np.ndarray, " n"]
    classes: tuple[str, ...]

    def take(self, places: Sequence[int] | np.ndarray | slice) -> "FoundImages":
        """The images at these places, in this order, with labels of the same classes."""
        chosen = np.arange(len(self.paths))[places]
        return self._replace(paths=tuple(self.paths[k] for k in chosen), labels=self.labels[chosen])


class Batch(NamedTuple):
    """One batch: images ``(b, size, size, 3)`` in 0..255, and labels ``(b,)``."""

    x: UInt8[np.ndarray, "b h w 3"]
    y: Int32[np.ndarray, " b"]


def find_images(folder: str | Path, *, classes: Sequence[str] | None = None) -> FoundImages:
    """Lists the images (.jpg, .jpeg, .png, .bmp, .webp) in the class folders of a folder, such as ImageNet's ``train``.

    Folders inside of a class folder belong to the class. Hidden files and folders, whose names start with a dot, are
    passed over (``._name.jpg``, which macOS adds, is no image), and so is ``__MACOSX``.

    Args:
      folder: Folder of the class folders.
      classes: Their names, in the order of the labels; by default those that are there, sorted. To read validation
        images with the labels of the training images, give ``classes=training.classes``: some of these classes may
        have no images, or no folder.

    Returns:
      The ``FoundImages``.

    Raises:
      FileNotFoundError: There is no such folder.
      ValueError: It has no class folders, one of these holds no image (unless ``classes`` are
        given) or images of a format that is not read, or has a name that is not among ``classes``.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}")
    there = sorted(path.name for path in folder.iterdir() if path.is_dir() and not _hidden(path.name))
    if not there:
        raise ValueError(f"{folder} has no class folders; expected {folder}/CLASS/*.jpg")
    names = tuple(there if classes is None else classes)
    if isinstance(classes, str) or len(set(names)) != len(names):
        raise ValueError(f"`classes` must be different names of folders, got {classes!r}")
    unknown = [name for name in there if name not in names]
    if unknown:
        raise ValueError(f"{folder} has the class folders {listed(unknown)}, which are not among `classes`")
    files = [_files(folder / name) for name in names]
    empty = [name for name, found in zip(names, files, strict=True) if not found]
    if (empty and classes is None) or len(empty) == len(names):
        raise ValueError(
            f"no images ({', '.join(ENDINGS)}) in the class folders {listed(empty)} of {folder}; to read them as "
            "classes without images, give `classes`"
        )
    labels = np.repeat(np.arange(len(names), dtype=np.int32), [len(found) for found in files])
    return FoundImages(tuple(path for found in files for path in found), labels, names)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _files(place: Path) -> list[Path]:
    """The images below a folder; none if it is not there."""
    files = [
        path
        for path in sorted(place.rglob("*"))
        if not path.is_dir() and not any(map(_hidden, path.relative_to(place).parts))
    ]
    unread = [path for path in files if path.suffix.lower() in UNREAD]
    if unread:
        raise ValueError(
            f"{unread[0]} is one of {len(unread)} images of a format that is not read; save it as one of "
            f"{', '.join(ENDINGS)}, or take it away"
        )
    return [path for path in files if path.suffix.lower() in ENDINGS]


def read_image(path: Path, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Reads an image, cuts out the largest square in its middle and averages that down to ``size`` pixels.

    Averaging (a box filter) is what the ImageNet64x64 release used, there on the whole image. See the module for what
    becomes of 16 bits, transparency and orientation.

    Raises:
      ValueError: The file is no image, or damaged, or has pixels that are transparent or of a kind that is not read.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            image = ImageOps.exif_transpose(_in_colours(image))
            width, height = image.size
            side = min(width, height)
            left, top = (width - side) // 2, (height - side) // 2
            box = (left, top, left + side, top + side)
            resized = image.resize((size, size), Image.Resampling.BOX, box=box)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is no image that can be read ({error}); replace it or leave it out") from error
    return np.asarray(resized)


def _in_colours(image: Any) -> Any:
    """A Pillow image in the mode RGB, with its EXIF data."""
    from PIL import Image

    if image.has_transparency_data and image.convert("RGBA").getextrema()[3][0] < 255:
        raise ValueError("it has transparent pixels, which have no colour: put it on a background")
    if image.mode == "I" or image.mode.startswith("I;16"):  # Pillow's `convert` would clip at 255.
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"its values are from {values.min()} to {values.max()}, not of 16 bits")
        grey = Image.fromarray((values // 256).astype(np.uint8))
        grey.info = dict(image.info)
        image = grey
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"):
        raise ValueError(f"its pixels are of Pillow's mode {image.mode!r}, which is not read: save it as RGB")
    if isinstance(image.info.get("transparency"), bytes):  # Of a palette, and opaque: Pillow would warn.
        image = image.convert("RGBA")
    return image.convert("RGB")


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
      found: Images, from ``find_images``.
      batch_size: Images in a batch.
      seed: Seed of the order, anew every epoch, in whole batches: the images left over sit out this epoch. None keeps
        the order of the files and ends each epoch with a smaller batch, as for evaluation.
      size: Height and width of the images, in pixels.
      epochs: How often to go through the images; None never ends.
      start: Number of batches to skip.
      threads: Number of threads that read ahead, a batch each.

    Returns:
      An iterator of ``Batch``.

    Raises:
      ValueError: A number out of range; ``grain`` or ``pillow`` is not installed; later, from the iterator: a file is
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
