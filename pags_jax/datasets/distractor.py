"""Images beside a letter that is independent of the class: does a model use the signal, or the distractor, too?

Source: Srinivas, Bordt and Lakkaraju 2023, the MNIST data set with a distractor. Differs from the reference: P13 one of
26 letters at a random place, from a seed, beside the image; there always the same A at the same place, above or below
it, and no seed.
"""

import string
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8

from pags_jax.datasets import glyphs
from pags_jax.datasets.labelled_images import Images

SCALED_TO = (14, 10)
"""Letters are enlarged by the largest whole factor that fits this share of an image: height / 14, width / 10."""


class Composite(NamedTuple):
    """Images twice as wide as before.

    Attributes:
      x: ``(n, height, 2 width, channels)``, the image on one half, a letter on the other.
      mask: ``(n, height, 2 width)``, true on the half that holds the image, the signal.
      letters: ``(n,)``, each image's letter, a str of one character.
    """

    x: UInt8[np.ndarray, "n h w2 c"]
    mask: Bool[np.ndarray, "n h w2"]
    letters: np.ndarray


def with_distractor(
    images: np.ndarray, *, seed: int | Sequence[int], letters: str = string.ascii_uppercase
) -> Composite:
    """Puts each image on the left or right half, and a white letter on black at a random place of the other half.

    Side, letter and place are drawn for each image alone, independent of each other and of what it shows. A letter is
    7 x 5 pixels, enlarged by ``max(1, min(height // 14, width // 10))``: 14 x 10 for images of 28 x 28.

    Args:
      images: uint8, ``(n, height, width, channels)``, at least 7 x 5 pixels.
      seed: Seed of ``numpy.random.default_rng``.
      letters: Letters to draw from, capital A to Z.

    Returns:
      The ``Composite``.

    Raises:
      ValueError: Images of another type or shape, or too small for a letter; letters other than A to Z.

    >>> composite = with_distractor(np.zeros((3, 28, 28, 1), np.uint8), seed=0)
    >>> composite.x.shape, composite.mask.shape, int(composite.mask.sum()) == 3 * 28 * 28
    ((3, 28, 56, 1), (3, 28, 56), True)
    """
    if images.ndim != 4 or images.dtype != np.uint8:
        raise ValueError(
            f"images must be uint8 (n, height, width, channels), got {images.dtype} of the shape {images.shape}"
        )
    n, height, width, _ = images.shape
    if height < glyphs.HEIGHT or width < glyphs.WIDTH:
        raise ValueError(f"images must be at least 7 x 5 pixels to hold a letter, got {height} x {width}")
    scale = max(1, min(height // SCALED_TO[0], width // SCALED_TO[1]))
    drawn = 255 * np.kron(glyphs.draw(letters), np.ones((scale, scale), np.uint8))
    tall, wide = drawn.shape[1:]
    rng = np.random.default_rng(seed)
    left = rng.integers(2, size=n).astype(bool)
    which = rng.integers(len(letters), size=n)
    rows = rng.integers(height - tall + 1, size=n)[:, None] + np.arange(tall)
    columns = rng.integers(width - wide + 1, size=n)[:, None] + np.arange(wide)
    distractor = np.zeros_like(images)
    distractor[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]] = drawn[which][..., None]
    on_left = np.concatenate([images, distractor], axis=2)
    on_right = np.concatenate([distractor, images], axis=2)
    mask = np.repeat(np.stack([left, ~left], axis=1), width, axis=1)
    return Composite(
        np.where(left[:, None, None, None], on_left, on_right),
        np.repeat(mask[:, None, :], height, axis=1),
        np.array(list(letters))[which],
    )


def add_distractors(images: Images, *, seed: int, letters: str = string.ascii_uppercase) -> Images:
    """Puts a distractor beside every train and test image, by independent draws, and keeps the masks."""
    train = with_distractor(images.train_x, seed=(seed, 0), letters=letters)
    test = with_distractor(images.test_x, seed=(seed, 1), letters=letters)
    return images._replace(train_x=train.x, test_x=test.x, train_mask=train.mask, test_mask=test.mask)
