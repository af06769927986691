"""Every crop is a window of the padded image, every place and side is drawn, each example by its own draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from pags_jax.augmentation import crop, crop_and_flip, flip, unchanged

N, SIDE, PADDING = 2000, 6, 4
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def images():
    """No two windows of an image are alike: pixels are distinct and above 0."""
    return jnp.asarray(np.random.default_rng(0).uniform(0.1, 1, (N, SIDE, SIDE + 1, 2)))


def windows(image, padding):
    """All windows of the padded image by their corner."""
    h, w, _ = image.shape
    padded = np.zeros((h + 2 * padding, w + 2 * padding, image.shape[2]), image.dtype)
    padded[padding : padding + h, padding : padding + w] = image
    places = np.ndindex(2 * padding + 1, 2 * padding + 1)
    return {(i, j): padded[i : i + h, j : j + w] for i, j in places}


def find(window, image, padding):
    places = [place for place, other in windows(image, padding).items() if np.array_equal(window, other)]
    assert len(places) == 1
    return places[0]


def test_crops_are_windows_and_all_places_are_as_likely(images):
    cropped = np.asarray(jax.jit(crop)(KEY, images))
    assert cropped.shape == images.shape
    places = np.array([find(a, b, PADDING) for a, b in zip(cropped, np.asarray(images), strict=True)])
    counts = np.zeros((9, 9), int)
    np.add.at(counts, tuple(places.T), 1)
    assert (counts > 0).all()
    assert stats.chisquare(counts.ravel()).pvalue > 1e-3
    # Examples are drawn apart: neighbours share a row, or a column, as often as strangers do.
    shared = (places[1:] == places[:-1]).sum(axis=0)
    assert all(stats.binomtest(int(count), N - 1, 1 / 9).pvalue > 1e-3 for count in shared)


@pytest.mark.parametrize("padding", [0, 1])
def test_other_paddings(padding, images):
    cropped = np.asarray(crop(KEY, images[:50], padding=padding))
    places = {find(a, b, padding) for a, b in zip(cropped, np.asarray(images), strict=False)}
    assert len(places) == (2 * padding + 1) ** 2


def test_half_of_the_images_are_mirrored_left_to_right(images):
    flipped = np.asarray(jax.jit(flip)(KEY, images))
    same = (flipped == images).all(axis=(1, 2, 3))
    mirrored = (flipped == np.asarray(images)[:, :, ::-1]).all(axis=(1, 2, 3))
    np.testing.assert_array_equal(same, ~mirrored)
    assert stats.binomtest(int(mirrored.sum()), N).pvalue > 1e-3
    runs = int((mirrored[1:] != mirrored[:-1]).sum())
    assert stats.binomtest(runs, N - 1).pvalue > 1e-3


def test_p9_crops_and_flips_are_drawn_apart(images):
    """P9: each example has its own place and side, and a side tells nothing of the place."""
    both = np.asarray(jax.jit(crop_and_flip)(KEY, images))
    sides, rows = [], []
    for result, image in zip(both, np.asarray(images), strict=True):
        options = windows(image, PADDING)
        found = [
            (side, place)
            for place, window in options.items()
            for side, turned in (("as is", window), ("mirrored", window[:, ::-1]))
            if np.array_equal(result, turned)
        ]
        assert len(found) == 1
        sides.append(found[0][0] == "mirrored")
        rows.append(found[0][1])
    table = np.zeros((2, 9, 2), int)
    for side, (row, column) in zip(sides, rows, strict=True):
        table[int(side), row, 0] += 1
        table[int(side), column, 1] += 1
    assert stats.binomtest(int(np.sum(sides)), N).pvalue > 1e-3
    for axis in (0, 1):
        assert stats.chi2_contingency(table[..., axis]).pvalue > 1e-3


@pytest.mark.parametrize("augment", [crop, flip, crop_and_flip])
def test_keys_decide_alone(augment, images):
    few = images[:20]
    first, again = augment(KEY, few), jax.jit(augment)(KEY, few)
    np.testing.assert_array_equal(first, again)
    assert (first != augment(jax.random.key(1), few)).any()
    assert first.dtype == few.dtype


def test_images_may_stay_as_they_are(images):
    np.testing.assert_array_equal(unchanged(KEY, images), images)
    assert crop_and_flip(KEY, images[:2].astype(jnp.float32)).dtype == jnp.float32
