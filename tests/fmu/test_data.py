"""`Data`: what `make_data` accepts and refuses, exact cell counts, and how `forget` is read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmu_jax import cells, make_data
from fmu_jax.data import cell_counts, check_data, forget_mask, without

X, Y, S = np.ones((4, 2)), np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])


def test_codes_become_int32_and_floats_keep_their_dtype():
    data = make_data(np.ones((4, 2), np.float32), Y.astype(float), S.astype(bool))
    assert data.x.dtype == data.weight.dtype == jnp.float32
    assert data.y.dtype == data.group.dtype == jnp.int32
    assert make_data(np.ones((4, 2), int), Y, S).x.dtype == jnp.float64


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x": np.where(np.eye(4, 2) > 0, np.nan, X)}, "2 features are NaN"),
        ({"x": np.where(np.eye(4, 2) > 0, np.inf, X)}, "2 features are NaN or infinite"),
        ({"y": [0, 1, 2, 1]}, "`y` must hold only 0 and 1|labels are neither"),
        ({"y": [-1, 1, -1, 1]}, "labels are neither 0 nor 1"),
        ({"y": [0, 1, 0.5, 1]}, "`y` must hold only 0 and 1"),
        ({"group": [0, 3, 1, 1], "groups": 2}, "1 group codes are neither 0 nor 1"),
        ({"group": [0, -1, 1, 1]}, "1 group codes are neither 0 nor 1"),
        ({"group": [0, 5, 1, 2], "groups": 4}, "1 group codes are not between 0 and 3"),
        ({"group": [0, 3, 1, 1]}, "group 2 has no rows in the data; .* needs all 4, coded without gaps"),
        ({"group": [0, 0.5, 1, 1]}, "`group` must hold whole numbers"),
        ({"group": [0, 1e9, 1, 1]}, "`groups` must be a whole number between 2 and 100, got 1000000001"),
        ({"groups": 1}, "`groups` must be a whole number between 2 and 100, got 1"),
        ({"weight": [1, 1, 0.5, 1]}, "weights are neither 0 nor 1"),
        ({"group": [0, 0, 0, 0]}, "group 1 has no rows"),
        ({"group": [1, 1, 1, 1]}, "group 0 has no rows"),
        ({"y": [1, 1, 1, 1]}, "no row with label 0"),
        ({"y": [0, 0, 0, 0]}, "no row with label 1"),
        ({"weight": [1, 1, 0, 0]}, "group 1 has no rows"),
        ({"weight": [1, 0, 1, 0]}, "no row with label 1"),
        ({"y": [0, 1, 0]}, r"`y` must have shape \(4,\)"),
        ({"group": [[0, 0, 1, 1]]}, r"`group` must have shape \(4,\)"),
        ({"weight": [1, 1, 1]}, r"`weight` must have shape \(4,\)"),
    ],
)
def test_bad_rows_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        make_data(**{"x": X, "y": Y, "group": S} | changed)


def test_wrong_dtypes_are_refused():
    data = make_data(X, Y, S)
    with pytest.raises(ValueError, match="integer codes"):
        check_data(data._replace(y=data.y.astype(float)))
    with pytest.raises(ValueError, match="`weight` of the same dtype"):
        check_data(data._replace(weight=data.weight.astype(jnp.float32)))


def test_counts_are_integers_over_rows_of_weight_one():
    rng = np.random.default_rng(0)
    y, s, w = rng.integers(0, 2, (3, 500))
    data = make_data(np.ones((500, 1), np.float32), y, s, w)
    expected = [[int(((s == g) & (y == t) & (w == 1)).sum()) for t in (0, 1)] for g in (0, 1)]
    table = cell_counts(data)
    assert table.dtype == jnp.int32
    np.testing.assert_array_equal(table, expected)
    assert float(cells.size(data)) == w.sum()
    np.testing.assert_array_equal(cells.sums(jnp.arange(500.0, dtype=jnp.float32), data), [
        [(np.arange(500) * (s == g) * (y == t) * w).sum() for t in (0, 1)] for g in (0, 1)
    ])  # fmt: skip


def test_forget_by_index_is_forget_by_mask():
    mask = np.isin(np.arange(6), [1, 4])
    np.testing.assert_array_equal(forget_mask([4, 1], 6), mask)
    np.testing.assert_array_equal(forget_mask(mask, 6), mask)
    np.testing.assert_array_equal(jax.jit(lambda rows: forget_mask(rows, 6))(jnp.array([4, 1])), mask)
    assert not forget_mask([], 6).any()


@pytest.mark.parametrize(
    ("forget", "message"),
    [
        ([0, 6], "row 6, but rows are numbered 0 to 5"),
        ([-1], "row -1, but rows are numbered 0 to 5"),
        ([2, 0, 2], "row 2 more than once"),
        ([0.0, 1.0], "row indices or a boolean mask"),
        ([[0, 1]], "row indices or a boolean mask"),
        ([True, False], r"must have shape \(6,\)"),
    ],
)
def test_bad_forget_sets_are_refused(forget, message):
    with pytest.raises(ValueError, match=message):
        forget_mask(forget, 6)


def test_without_only_zeroes_weights():
    data = make_data(X, Y, S, [1, 1, 1, 0])
    rest = without(data, jnp.array([True, False, False, False]))
    np.testing.assert_array_equal(rest.weight, [0, 1, 1, 0])
    np.testing.assert_array_equal(rest.x, data.x)
    assert rest.weight.dtype == data.weight.dtype
