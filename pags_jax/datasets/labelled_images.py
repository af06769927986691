"""What every loader returns: train and test images with their labels."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, UInt8


class Images(NamedTuple):
    """One image set in memory, as NumPy arrays.

    Attributes:
      train_x: ``(n, height, width, channels)``, 0..255.
      train_y: ``(n,)``, from 0 to ``len(classes) - 1``.
      test_x, test_y: The same for the test images.
      classes: What each label means.
      train_mask, test_mask: ``(n, height, width)``, true where an image holds its signal; None unless that is known.
    """

    train_x: UInt8[np.ndarray, "n h w c"]
    train_y: Int32[np.ndarray, " n"]
    test_x: UInt8[np.ndarray, "m h w c"]
    test_y: Int32[np.ndarray, " m"]
    classes: tuple[str, ...]
    train_mask: Bool[np.ndarray, "n h w"] | None = None
    test_mask: Bool[np.ndarray, "m h w"] | None = None


def check_label_range(labels: np.ndarray, *, first: int, last: int, source: str) -> None:
    """Raises ValueError naming the first label outside ``first..last``, and its place."""
    outside = np.flatnonzero((labels < first) | (labels > last))
    if outside.size:
        place = outside[0]
        raise ValueError(
            f"{source} has the label {labels[place]} at record {place} (from 0), expected {first} to {last}"
        )
