"""``load``: every named image set behind one call."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pags_jax.datasets import cifar, fashion_mnist
from pags_jax.datasets.distractor import add_distractors
from pags_jax.datasets.idx_folders import load_idx_set
from pags_jax.datasets.imagenet64 import load_imagenet64
from pags_jax.datasets.labelled_images import Images
from pags_jax.datasets.mnist import MNIST, load_test_images
from pags_jax.datasets.reading import listed

_LOADERS: dict[str, Callable[..., Images]] = {
    "fashion_mnist_full": fashion_mnist.load_full,
    "mnist": partial(load_idx_set, MNIST),
    "mnist_test": load_test_images,
    "cifar10": partial(cifar.load_cifar, cifar.CIFAR10, labels="class"),
    "cifar100": partial(cifar.load_cifar, cifar.CIFAR100),
    "imagenet64": load_imagenet64,
}
_OPTIONS = {"cifar100": ("labels",), "imagenet64": ("batches",), "distractor": ("seed", "of", "letters")}
_DEFAULTS: dict[str, dict[str, Any]] = {"cifar100": {"labels": "fine"}, "distractor": {"of": "fashion_mnist"}}

_PART_OF = {"fashion_mnist": "fashion_mnist_full", "mnist_test": "mnist"}
"""Image sets that are a part of another one."""

NAMES = ("fashion_mnist", *_LOADERS, "distractor")
"""Every image set that ``load`` knows."""

if TYPE_CHECKING:
    Name = str
else:
    Name = Literal[NAMES]
    """Type of a flag that names an image set."""


def load(name: str, *, folder: str | Path | None = None, **options: Any) -> Images:
    """Loads a named image set as uint8 NumPy arrays.

    ==================  =============  =================  ==============================================
    name                images         train, test        from
    ==================  =============  =================  ==============================================
    fashion_mnist       28 x 28 x 1    8,000, 2,000       the package: a balanced subset
    fashion_mnist_full  28 x 28 x 1    60,000, 10,000     `folder`, Debian's package, or a download
    mnist               28 x 28 x 1    60,000, 10,000     `folder` or a download
    mnist_test          28 x 28 x 1    8,000, 2,000       the same: its test images alone, split
    cifar10, cifar100   32 x 32 x 3    50,000, 10,000     `folder` or a download (the binary version)
    imagenet64          64 x 64 x 3    1,281,167, 50,000  `folder`: the released npz batches
    distractor          h x 2 w x c    as `of`            another of these, beside a letter, with masks
    ==================  =============  =================  ==============================================

    Downloads go to the user's cache folder once, and their SHA-256 is checked; files in `folder` are checked for what
    they must hold. For ImageNet in class folders, too large for memory, see ``image_batches``.

    Args:
      name: One of ``NAMES``.
      folder: Where the files lie, if they are the user's.
      **options: "cifar100": `labels`, "fine" (100 classes, the default) or "coarse" (20). "imagenet64": `batches`,
        which of the ten train batches to read (all). "distractor": `seed` (required), `of`, the name of the set
        ("fashion_mnist"; the paper's is "mnist"), and `letters` to draw from.

    Returns:
      The ``Images``.

    Raises:
      FileNotFoundError: A file is missing.
      ValueError: Unknown data set or option; a file is damaged, of another shape, or cannot be downloaded.

    >>> images = load("fashion_mnist")
    >>> images.train_x.shape, images.test_x.shape, images.classes[:2]
    ((8000, 28, 28, 1), (2000, 28, 28, 1), ('T-shirt/top', 'Trouser'))
    """
    if name not in NAMES:
        raise ValueError(f"unknown data set {name!r}; available: {listed(NAMES)}")
    known = _OPTIONS.get(name, ())
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"unknown option {listed(unknown)} of {name!r}; available: {listed(known) or 'none'}")
    options = _DEFAULTS.get(name, {}) | options
    if name == "fashion_mnist":
        if folder is not None:
            raise ValueError(f"'fashion_mnist' is bundled and takes no folder (got {folder}); see 'fashion_mnist_full'")
        return fashion_mnist.load_bundled()
    if name == "distractor":
        return _load_distractor(folder, **options)
    return _LOADERS[name](folder, **options)


def share_images(one: str, other: str) -> bool:
    """Whether two named sets hold images of one kind, since they are one set or parts of it.

    >>> share_images("mnist_test", "mnist"), share_images("mnist", "fashion_mnist")
    (True, False)
    """
    return _PART_OF.get(one, one) == _PART_OF.get(other, other)


def _load_distractor(folder: str | Path | None, *, of: str, seed: int | None = None, **options: Any) -> Images:
    if of == "distractor":
        raise ValueError("`of` must be another data set than 'distractor'")
    if not isinstance(seed, int) or seed < 0:
        raise ValueError(f"'distractor' needs `seed`, a whole number >= 0, got {seed!r}")
    return add_distractors(load(of, folder=folder), seed=seed, **options)
