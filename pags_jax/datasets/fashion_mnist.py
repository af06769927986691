"""Fashion-MNIST: articles of clothing, 60,000 train and 10,000 test images of 28 x 28 pixels.

Source: Xiao, Rasul and Vollgraf, *Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms*
(arXiv 1708.07747); MIT licence.
"""

import gzip
import io
from pathlib import Path

import numpy as np
from jaxtyping import Int, Int64

from pags_jax.datasets import idx, reading
from pags_jax.datasets.idx_folders import STEMS, IdxSet, download_files, load_idx_set, read_folder
from pags_jax.datasets.labelled_images import Images

FASHION_MNIST = IdxSet(
    name="fashion_mnist",
    address="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    sha256={
        "train-images-idx3-ubyte": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "train-labels-idx1-ubyte": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "t10k-images-idx3-ubyte": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "t10k-labels-idx1-ubyte": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    },
    classes=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
)

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts the whole set."""

BUNDLED = Path(__file__).resolve().parent / "files" / "fashion_mnist"
"""Folder of the bundled subset; ``SOURCES.md`` beside it says how it was chosen."""
BUNDLED_SHA256 = {
    "train-images-idx3-ubyte": "24eb399acd5914276e3e58f0b39a67dbf4d7f4c3387250374967382c55673d68",
    "train-labels-idx1-ubyte": "ab52619c793de712043ccbabcddfcdda8fb7262e72d1c02baca5e064a765166c",
    "t10k-images-idx3-ubyte": "6721a05528ad90853ac81a0c0b407c385ea238b81b205060ec4f6b5884b4833d",
    "t10k-labels-idx1-ubyte": "8b57ebf69153c657f978a099d493de14343cc69dcc54540620d50e306fa0b0de",
}
"""SHA-256 of each bundled file's contents after decompression: the compressed bytes depend on the zlib."""
RAW_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
"""SHA-256 of the whole set's files after decompression: copies differ in how they are compressed."""
TRAIN_PER_CLASS = 800
TEST_PER_CLASS = 200
SUBSET_SEED = 0


def load_bundled() -> Images:
    """Reads the subset that ships with the package: 8,000 train and 2,000 test images, as many of each class.

    Raises:
      FileNotFoundError: A bundled file is missing.
      ValueError: One is damaged.
    """
    with reading.advising("install the package again, or run `python .ci/build_datasets.py` in the source tree"):
        return read_folder(BUNDLED, classes=FASHION_MNIST.classes, content_sha256=BUNDLED_SHA256)


def load_full(folder: str | Path | None) -> Images:
    """Reads all images: from a folder of the user's, else from Debian's package, else downloaded.

    Raises:
      FileNotFoundError: A file is missing.
      ValueError: One is damaged, or cannot be downloaded.
    """
    return load_idx_set(FASHION_MNIST, DEBIAN if folder is None and DEBIAN.is_dir() else folder)


def choose_balanced(labels: Int[np.ndarray, " n"], *, per_class: int, seed: int) -> Int64[np.ndarray, " m"]:
    """Chooses the same number of examples of every class, in random order.

    Args:
      labels: Class numbers.
      per_class: How many of each.
      seed: Seed of ``numpy.random.default_rng``.

    Returns:
      Their places in ``labels``.

    Raises:
      ValueError: A class has fewer.

    >>> labels = np.array([0, 1, 0, 1, 1, 0])
    >>> sorted(labels[choose_balanced(labels, per_class=2, seed=0)].tolist())
    [0, 0, 1, 1]
    """
    values, counts = np.unique(labels, return_counts=True)
    if counts.min(initial=per_class) < per_class:
        raise ValueError(f"class {values[counts.argmin()]} has {counts.min()} examples, fewer than {per_class}")
    rng = np.random.default_rng(seed)
    chosen = [rng.permutation(np.flatnonzero(labels == value))[:per_class] for value in values]
    return rng.permutation(np.concatenate(chosen))


def pack_subset(images: Images) -> dict[str, bytes]:
    """Makes the bundled files from the whole set.

    Returns:
      The bytes of each gzipped idx file by its name; they depend on the images and the zlib alone (no time, no name).
    """
    train = choose_balanced(images.train_y, per_class=TRAIN_PER_CLASS, seed=SUBSET_SEED)
    test = choose_balanced(images.test_y, per_class=TEST_PER_CLASS, seed=SUBSET_SEED)
    arrays = (
        images.train_x[train, :, :, 0],
        images.train_y[train].astype(np.uint8),
        images.test_x[test, :, :, 0],
        images.test_y[test].astype(np.uint8),
    )
    return {f"{stem}.gz": _gzip(idx.encode(array)) for stem, array in zip(STEMS, arrays, strict=True)}


def build_subset(folder: str | Path | None) -> dict[str, bytes]:
    """The bundled files by their names, made from the raw ones of a folder or their downloads.

    Raises:
      FileNotFoundError: A raw file is missing.
      ValueError: One is damaged, or its contents have another SHA-256.
    """
    raw = download_files(FASHION_MNIST) if folder is None else Path(folder)
    return pack_subset(read_folder(raw, classes=FASHION_MNIST.classes, content_sha256=RAW_SHA256))


def _gzip(content: bytes) -> bytes:
    out = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=out, mode="wb", compresslevel=9, mtime=0) as file:
        file.write(content)
    return out.getvalue()
