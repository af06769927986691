"""The distractor composite, taken apart again: where the image lies, and which letter lies where on the other half."""

import string

import numpy as np
import pytest

from pags_jax import datasets
from pags_jax.datasets import distractor, glyphs


def random_images(n, height=28, width=28, channels=1):
    return np.random.default_rng(7).integers(256, size=(n, height, width, channels), dtype=np.uint8)


def halves(composite, width):
    """Each composite's left flag, and its signal and distractor half, by looking at its mask."""
    left = composite.mask[:, 0, 0]
    first, second = composite.x[:, :, :width], composite.x[:, :, width:]
    sides = left[:, None, None, None]
    return left, np.where(sides, first, second), np.where(sides, second, first)


@pytest.mark.parametrize(("size", "channels", "scale"), [((28, 28), 1, 2), ((32, 32), 3, 2), ((64, 64), 3, 4)])
def test_parts(size, channels, scale):
    images = random_images(60, *size, channels)
    composite = datasets.with_distractor(images, seed=0)
    assert composite.x.shape == (60, size[0], 2 * size[1], channels)
    assert composite.x.dtype == np.uint8
    left, signal, other = halves(composite, size[1])
    np.testing.assert_array_equal(signal, images)
    for i, mask in enumerate(composite.mask):
        expected = np.zeros((size[0], 2 * size[1]), bool)
        expected[:, : size[1]] = left[i]
        expected[:, size[1] :] = not left[i]
        np.testing.assert_array_equal(mask, expected)
    for letter, half in zip(composite.letters, other, strict=True):
        assert (half == half[..., :1]).all()
        assert set(np.unique(half)) == {0, 255}
        rows, columns = np.nonzero(half[..., 0])
        found = half[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1, 0] // 255
        glyph = glyphs.draw(str(letter))[0]
        glyph = glyph[:, np.flatnonzero(glyph.any(0))[0] : np.flatnonzero(glyph.any(0))[-1] + 1]
        np.testing.assert_array_equal(found, glyph.repeat(scale, axis=0).repeat(scale, axis=1))


def test_letters_are_26_different_ones():
    drawn = glyphs.draw(string.ascii_uppercase)
    assert drawn.shape == (26, 7, 5)
    assert len({glyph.tobytes() for glyph in drawn}) == 26
    # Every letter reaches from the top row to the bottom row.
    assert drawn[:, 0].any(1).all()
    assert drawn[:, -1].any(1).all()
    for letter in "AHIMOTUVWXY":  # Mirror images of themselves.
        np.testing.assert_array_equal(glyphs.draw(letter)[0], glyphs.draw(letter)[0, :, ::-1])
    for letter in "BCDEHIKOX":  # The same upside down, but for one row of A- and K-like bars.
        np.testing.assert_array_equal(glyphs.draw(letter)[0, [0, 6]], glyphs.draw(letter)[0, [6, 0]])


def test_side_letter_and_place_are_uniform_and_unrelated():
    n = 20_000
    composite = datasets.with_distractor(np.zeros((n, 28, 28, 1), np.uint8), seed=1)
    left, _, other = halves(composite, 28)
    assert abs(left.mean() - 0.5) < 4 * 0.5 / np.sqrt(n)
    counts = np.unique_counts(composite.letters).counts
    assert len(counts) == 26
    chi2 = ((counts - n / 26) ** 2 / (n / 26)).sum()
    assert chi2 < 25 + 5 * np.sqrt(2 * 25)
    top = other[..., 0].any(2).argmax(1)
    np.testing.assert_array_equal(np.unique(top), np.arange(15))
    assert ((np.bincount(top) - n / 15) ** 2 / (n / 15)).sum() < 14 + 5 * np.sqrt(2 * 14)
    number = np.array([string.ascii_uppercase.index(letter) for letter in composite.letters])
    related = np.corrcoef(np.stack([left.astype(float), number.astype(float), top.astype(float)]))
    assert np.abs(related - np.eye(3)).max() < 5 / np.sqrt(n)


def test_draws_depend_on_the_seed_alone_not_on_images():
    first = datasets.with_distractor(random_images(40), seed=4)
    again = datasets.with_distractor(random_images(40)[::-1], seed=4)
    other = datasets.with_distractor(random_images(40), seed=5)
    np.testing.assert_array_equal(first.mask, again.mask)
    np.testing.assert_array_equal(first.letters, again.letters)
    np.testing.assert_array_equal(halves(first, 28)[2], halves(again, 28)[2])
    assert (first.letters != other.letters).any()


def test_p13_any_letter_or_the_original_one():
    """Differs from the reference: P13; ``letters`` narrows the choice down to its A."""
    assert set(datasets.with_distractor(random_images(500), seed=0).letters) == set(string.ascii_uppercase)
    assert set(datasets.with_distractor(random_images(50), seed=0, letters="A").letters) == {"A"}
    assert set(datasets.with_distractor(random_images(50), seed=0, letters="QX").letters) == {"Q", "X"}


def test_load():
    plain = datasets.load("fashion_mnist")
    images = datasets.load("distractor", seed=3)
    assert images.train_x.shape == (8000, 28, 56, 1)
    assert images.test_x.shape == (2000, 28, 56, 1)
    np.testing.assert_array_equal(images.train_y, plain.train_y)
    assert images.classes == plain.classes
    for x, mask, before in (
        (images.train_x, images.train_mask, plain.train_x),
        (images.test_x, images.test_mask, plain.test_x),
    ):
        np.testing.assert_array_equal(x[mask].reshape(before.shape), before)
    assert (images.train_mask[:2000] != images.test_mask).any()


def test_composite_keeps_labels_and_masks_of_any_set():
    plain = datasets.Images(
        random_images(5), np.arange(5, dtype=np.int32), random_images(2), np.zeros(2, np.int32), tuple("abcde")
    )
    images = distractor.add_distractors(plain, seed=0, letters="Z")
    np.testing.assert_array_equal(images.test_x[images.test_mask].reshape(2, 28, 28, 1), plain.test_x)
    np.testing.assert_array_equal(images.train_y, np.arange(5))


@pytest.mark.parametrize(
    ("images", "letters", "said"),
    [
        (np.zeros((2, 6, 28, 1), np.uint8), "A", "at least 7 x 5 pixels to hold a letter, got 6 x 28"),
        (np.zeros((2, 28, 4, 1), np.uint8), "A", "got 28 x 4"),
        (np.zeros((2, 28, 28), np.uint8), "A", r"must be uint8 .*got uint8 of the shape \(2, 28, 28\)"),
        (np.zeros((2, 28, 28, 1)), "A", "must be uint8 .*got float64"),
        (np.zeros((2, 28, 28, 1), np.uint8), "", "`letters` must be capital letters A to Z, at least one; got ''"),
        (np.zeros((2, 28, 28, 1), np.uint8), "Ab", "got 'Ab'"),
    ],
)
def test_errors(images, letters, said):
    with pytest.raises(ValueError, match=said):
        datasets.with_distractor(images, seed=0, letters=letters)
