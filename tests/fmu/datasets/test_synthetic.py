"""Synthetic rows: what `disparity` and `group_share` do, seeds, blocks, dtype, errors."""

import jax
import numpy as np
import pytest

from fmu_jax import datasets
from fmu_jax.datasets import simulation


def pooled(*split):
    """All rows: features without bias, labels, groups."""
    parts = [(np.asarray(data.x)[:, :-1], np.asarray(data.y), np.asarray(data.group)) for data in split]
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


def draw(**options):
    """20,000 rows of 4 features."""
    split = datasets.synthetic(20_000, 4, seed=5, **options)
    return split, pooled(split.train, split.test)


def test_without_disparity_groups_are_alike():
    split, (x, y, group) = draw(disparity=0.0, group_share=0.3)
    assert group.mean() == pytest.approx(0.3, abs=0.015)
    assert y[group == 1].mean() == pytest.approx(y[group == 0].mean(), abs=0.03)
    assert np.linalg.norm(x[group == 1].mean(0) - x[group == 0].mean(0)) * split.scale[0] < 0.1


@pytest.mark.parametrize("disparity", [0.5, 2.0])
def test_disparity_is_the_distance_of_the_means_and_moves_base_rates(disparity):
    split, (x, y, group) = draw(disparity=disparity, group_share=0.5)
    gap = np.linalg.norm(x[group == 1].mean(0) - x[group == 0].mean(0)) * split.scale[0]
    assert gap == pytest.approx(disparity, abs=0.06)
    assert y[group == 1].mean() - y[group == 0].mean() > 0.15 * disparity


def test_labels_follow_a_logistic_model():
    split, (x, y, group) = draw(disparity=1.0)
    design = np.column_stack([x, group - 0.5, np.ones(len(x))])
    theta = np.zeros(design.shape[1])
    for _ in range(30):
        p = 1 / (1 + np.exp(-design @ theta))
        theta -= np.linalg.solve((design.T * (p * (1 - p))) @ design, design.T @ (p - y))
    assert np.linalg.norm(theta[:4] / split.scale) == pytest.approx(simulation.MARGIN, abs=0.1)
    assert theta[4] == pytest.approx(1.0, abs=0.15)
    assert theta[5] == pytest.approx(0.0, abs=0.1)


def test_shapes_norms_and_seeds():
    split, again, other = (datasets.load("synthetic", group="group", seed=s, n=1001, d=3) for s in (1, 1, 2))
    assert split.train.x.shape == (800, 4)
    assert split.test.x.shape == (201, 4)
    assert split.feature_names == ("x0", "x1", "x2", "bias")
    norms = np.linalg.norm(np.asarray(split.train.x)[:, :-1], axis=1)
    assert 1 - 1e-12 < norms.max() <= 1
    np.testing.assert_array_equal(np.asarray(split.train.x)[:, -1], 1)
    np.testing.assert_array_equal(split.train.x, again.train.x)
    assert (np.asarray(split.train.y) != np.asarray(other.train.y)).any()
    assert datasets.load("synthetic", group="group", seed=0).train.x.shape == (8000, 21)


def test_blocks_cover_every_row(monkeypatch):
    monkeypatch.setattr(simulation, "BLOCK_ROWS", 7)
    split = datasets.synthetic(100, 2, seed=0)
    x, y, group = pooled(split.train, split.test)
    assert np.isfinite(x).all()
    assert len(np.unique(x[:, 0])) == 100
    assert set(y) == set(group) == {0, 1}


def test_float32_without_x64():
    with jax.enable_x64(False):
        split = datasets.synthetic(2000, 5, seed=0)
    assert split.train.x.dtype == split.train.weight.dtype == np.float32
    assert np.linalg.norm(np.asarray(split.train.x, np.float64)[:, :-1], axis=1).max() <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 9}, "n must be at least 10, got 9"),
        ({"d": 0}, "d must be at least 1, got 0"),
        ({"group_share": 1.0}, r"group_share must be between 0 and 1 \(exclusive\), got 1.0"),
        ({"group_share": 1e-9}, "group 1 has no rows"),
        ({"disparity": -1.0}, "disparity must be finite and at least 0, got -1.0"),
        ({"disparity": float("nan")}, "disparity must be finite"),
        ({"test_fraction": 1.0}, "test_fraction must be between 0 and 1"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        datasets.load("synthetic", group="group", seed=0, **{"n": 100, "d": 2, **options})
