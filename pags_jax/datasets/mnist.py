"""MNIST: handwritten digits, 60,000 train and 10,000 test images of 28 x 28 pixels (LeCun, Cortes and Burges)."""

from pathlib import Path

from pags_jax.datasets import reading
from pags_jax.datasets.idx_folders import IdxSet, download_files, read_split
from pags_jax.datasets.labelled_images import Images

MNIST = IdxSet(
    name="mnist",
    # The files as first published, whose own page no longer serves them.
    address="https://storage.googleapis.com/cvdf-datasets/mnist/",
    sha256={
        "train-images-idx3-ubyte": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "train-labels-idx1-ubyte": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "t10k-images-idx3-ubyte": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "t10k-labels-idx1-ubyte": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    },
    classes=("0", "1", "2", "3", "4", "5", "6", "7", "8", "9"),
)


def load_test_images(folder: str | Path | None) -> Images:
    """Reads the 10,000 test images alone, for users without the others: every fifth is a test image, the rest train.

    Raises:
      ValueError: See ``idx_folders.read_split``; or a download fails.
    """
    folder = download_files(MNIST) if folder is None else Path(folder)
    with reading.advising(f"get the files of {MNIST.name} from {MNIST.address}"):
        x, y = read_split(folder, "t10k", classes=len(MNIST.classes))
    if len(x) < 5:
        raise ValueError(f"{folder} holds {len(x)} test images, expected at least 5 to split them")
    test = slice(4, None, 5)
    train = [row for row in range(len(x)) if row % 5 != 4]
    return Images(x[train], y[train], x[test], y[test], MNIST.classes)
