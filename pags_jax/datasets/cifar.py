"""CIFAR-10 and CIFAR-100 in their binary layout: 60,000 images of 32 x 32 pixels in three colours.

Each record is one label byte (CIFAR-100: a coarse and a fine one) and 3,072 pixel bytes: the red, the green and the
blue plane, row by row. Source: Krizhevsky, *Learning Multiple Layers of Features from Tiny Images* (2009), and the data
sets' own page.
"""

import dataclasses
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Int32, UInt8

from pags_jax.datasets import reading
from pags_jax.datasets.labelled_images import Images, check_label_range

SIZE = 32
PIXELS = 3 * SIZE * SIZE


@dataclasses.dataclass(frozen=True)
class Layout:
    """The layout of a CIFAR set's files.

    Attributes:
      name: The set's name, and its folder in the cache.
      archive: File name of the published archive.
      sha256: SHA-256 of that archive.
      folder: Folder of the files in that archive.
      train, test: Names of the files with records.
      train_records, test_records: How many records each of these files holds; the files themselves do not say.
      labels: For each label byte in turn, what it is called, and the file that names its classes.
      classes: How many classes each label byte tells apart.
    """

    name: str
    archive: str
    sha256: str
    folder: str
    train: tuple[str, ...]
    test: str
    train_records: int
    test_records: int
    labels: Mapping[str, str]
    classes: Mapping[str, int]

    @property
    def address(self) -> str:
        """Where the archive is published."""
        return f"https://www.cs.toronto.edu/~kriz/{self.archive}"

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that is read."""
        return (*self.train, self.test, *self.labels.values())


CIFAR10 = Layout(
    name="cifar10",
    archive="cifar-10-binary.tar.gz",
    sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    folder="cifar-10-batches-bin",
    train=tuple(f"data_batch_{k}.bin" for k in range(1, 6)),
    test="test_batch.bin",
    train_records=10_000,
    test_records=10_000,
    labels={"class": "batches.meta.txt"},
    classes={"class": 10},
)
CIFAR100 = Layout(
    name="cifar100",
    archive="cifar-100-binary.tar.gz",
    sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    folder="cifar-100-binary",
    train=("train.bin",),
    test="test.bin",
    train_records=50_000,
    test_records=10_000,
    labels={"coarse": "coarse_label_names.txt", "fine": "fine_label_names.txt"},
    classes={"coarse": 20, "fine": 100},
)


def decode(
    content: bytes, *, classes: tuple[int, ...], records: int, source: str
) -> tuple[UInt8[np.ndarray, "n 32 32 3"], Int32[np.ndarray, "n labels"]]:
    """Reads records.

    Args:
      content: The bytes of a file.
      classes: For each label byte, how many classes there are.
      records: How many records there must be.
      source: Name for messages.

    Returns:
      Images ``(n, 32, 32, 3)``, and labels ``(n, len(classes))``.

    Raises:
      ValueError: Another number of bytes, or a label out of range.
    """
    width = len(classes) + PIXELS
    if len(content) != records * width:
        raise ValueError(
            f"{source} has {len(content)} bytes, expected {records * width}: {records} records of {width} bytes "
            "(cut off, or another version of the data set than the binary one)"
        )
    table = np.frombuffer(content, np.uint8).reshape(records, width)
    for column, count in enumerate(classes):
        check_label_range(table[:, column], first=0, last=count - 1, source=source)
    planes = table[:, len(classes) :].reshape(records, 3, SIZE, SIZE)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), table[:, : len(classes)].astype(np.int32)


def decode_names(content: bytes, *, count: int, source: str) -> tuple[str, ...]:
    """Reads class names, one a line.

    Raises:
      ValueError: There are not ``count`` of them.
    """
    names = tuple(content.decode("utf-8", errors="replace").split())
    if len(names) != count:
        raise ValueError(f"{source} has {len(names)} class names, expected {count}, one a line")
    return names


def read_archive(path: Path, layout: Layout) -> dict[str, bytes]:
    """Reads the files of a published archive in memory, so that nothing in it can write anywhere.

    Raises:
      ValueError: The archive is damaged or lacks a file.
    """
    wanted = {f"{layout.folder}/{name}": name for name in layout.files}
    found = {}
    # Decompressed whole: only its end holds the checksum, which tarfile would not read.
    content = reading.gunzip(reading.read_bytes(path), source=str(path))
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for member in archive:
                name = wanted.get(member.name.removeprefix("./"))
                if name is not None and member.isreg() and (file := archive.extractfile(member)) is not None:
                    found[name] = file.read()
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{path} is damaged or cut off: no whole tar.gz archive ({error})") from error
    missing = [f"{layout.folder}/{name}" for name in layout.files if name not in found]
    if missing:
        raise ValueError(f"{path} does not hold the files {reading.listed(missing)}")
    return found


def read_files(folder: Path, layout: Layout) -> tuple[Path, dict[str, bytes]]:
    """Reads the files from a folder, from the archive's folder in it, or from the archive itself in it.

    Returns:
      The place where they lie, and the bytes of each by its name.

    Raises:
      FileNotFoundError: A file is missing.
      ValueError: One is damaged.
    """
    for place in (folder, folder / layout.folder):
        if any((place / name).is_file() for name in layout.files):
            return place, {name: reading.read_bytes(place / name) for name in layout.files}
    archive = folder / layout.archive
    if archive.is_file():
        return archive / layout.folder, read_archive(archive, layout)
    raise FileNotFoundError(
        f"no file {folder / layout.train[0]}, nor {layout.folder}/{layout.train[0]} or {layout.archive} in {folder}"
    )


def assemble(place: Path, files: Mapping[str, bytes], layout: Layout, *, labels: str) -> Images:
    """Puts the files of a CIFAR set together, keeping one label byte; see ``load_cifar``."""
    column = list(layout.labels).index(labels)
    counts = tuple(layout.classes.values())
    source = layout.labels[labels]
    names = decode_names(files[source], count=layout.classes[labels], source=str(place / source))

    def decoded(name, records):
        return decode(files[name], classes=counts, records=records, source=str(place / name))

    train = [decoded(name, layout.train_records) for name in layout.train]
    train_x, train_y = (np.concatenate(parts) for parts in zip(*train, strict=True))
    test_x, test_y = decoded(layout.test, layout.test_records)
    return Images(train_x, train_y[:, column].copy(), test_x, test_y[:, column].copy(), names)


def load_cifar(layout: Layout, folder: str | Path | None, *, labels: str) -> Images:
    """Reads CIFAR-10 or CIFAR-100.

    Args:
      layout: Layout of the set's files.
      folder: Holds the files of the binary version, their folder, or the archive; None downloads the archive.
      labels: Which label byte to keep, a key of ``layout.labels``.

    Returns:
      The ``Images``.

    Raises:
      FileNotFoundError: A file is missing.
      ValueError: Unknown ``labels``; a file is damaged, of another size, or has labels out of range.
    """
    if labels not in layout.labels:
        raise ValueError(f"unknown labels={labels!r} of {layout.name!r}; available: {reading.listed(layout.labels)}")
    if folder is None:
        folder = reading.download(layout.address, sha256=layout.sha256, to=layout.name).parent
    with reading.advising(f"get the binary version from {layout.address}"):
        return assemble(*read_files(Path(folder), layout), layout, labels=labels)
