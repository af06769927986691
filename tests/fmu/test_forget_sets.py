"""Which rows are forgotten: from the right subset, never the last of a cell, the same for the same seed."""

import jax.numpy as jnp
import numpy as np
import pytest

from fmu_jax import forget_sets, make_data
from fmu_jax.data import select_rows

DRAW = np.random.default_rng(0)
GROUP = np.repeat([0, 1, 2], [300, 40, 160])
DATA = make_data(
    np.column_stack([DRAW.normal(size=(500, 2)), np.ones(500)]), DRAW.random(500) < 0.5, GROUP, DRAW.random(500) < 0.9
)
ALIVE = np.flatnonzero(np.asarray(DATA.weight))


def test_rows_of_weight_zero_do_not_count():
    assert forget_sets.count_rows(DATA) == len(ALIVE) < 500
    groups = {"random": (0, 1, 2), "minority": (1,), "majority": (0,)}
    for subset, members in groups.items():
        expected = ALIVE[np.isin(GROUP[ALIVE], members)]
        np.testing.assert_array_equal(forget_sets.subset_rows(DATA, subset), expected)
    with pytest.raises(ValueError, match="unknown subset 'most'; known: random, minority, majority"):
        forget_sets.subset_rows(DATA, "most")


@pytest.mark.parametrize("subset", ["random", "minority", "majority"])
def test_draws_are_of_the_subset_without_repetition(subset):
    pool = forget_sets.subset_rows(DATA, subset)
    rows = forget_sets.draw_rows(DATA, 20, subset=subset, seed=3)
    assert len(set(rows.tolist())) == 20
    assert np.isin(rows, pool).all()
    np.testing.assert_array_equal(rows, forget_sets.draw_rows(DATA, 20, subset=subset, seed=3))
    assert not np.array_equal(rows, forget_sets.draw_rows(DATA, 20, subset=subset, seed=4))
    assert forget_sets.draw_rows(DATA, len(pool), subset=subset, seed=3) is None


def test_public_rows_and_the_others_are_all_rows():
    public, others = forget_sets.split_public(50, 0.3, seed=1)
    order = np.random.default_rng([1, 5]).permutation(50)
    np.testing.assert_array_equal(np.concatenate([public, others]), order)
    assert len(public) == 15
    with pytest.raises(ValueError, match=r"`share` must lie in \[0, 1\], got 1.5"):
        forget_sets.split_public(50, 1.5, seed=1)


def test_of_many_classes_the_first_stands_for_all():
    many = DATA._replace(y=jnp.stack([DATA.y, 1 - DATA.y]))
    np.testing.assert_array_equal(forget_sets.draw_rows(many, 20, seed=3), forget_sets.draw_rows(DATA, 20, seed=3))


def test_selected_rows_are_rows_of_their_own():
    chosen = select_rows(DATA, [7, 3])
    np.testing.assert_array_equal(chosen.x, np.asarray(DATA.x)[[7, 3]])
    assert (chosen.y.shape, chosen.groups) == ((2,), DATA.groups)
    np.testing.assert_array_equal(select_rows(DATA, np.asarray(DATA.weight) > 0).group, GROUP[ALIVE])


def test_no_draw_empties_a_cell():
    y, group = np.asarray(DATA.y), GROUP
    sizes = [np.sum((y[ALIVE] == label) & (group[ALIVE] == 1)) for label in (0, 1)]
    found = [forget_sets.draw_rows(DATA, count, subset="minority", seed=0) for count in range(1, sum(sizes))]
    for count, rows in enumerate(found, start=1):
        drawn = np.random.default_rng([0, count]).choice(ALIVE[group[ALIVE] == 1], count, replace=False)
        left = np.setdiff1d(ALIVE, drawn)
        emptied = any(not np.any((y[left] == label) & (group[left] == 1)) for label in (0, 1))
        assert (rows is None) == emptied
    assert any(rows is None for rows in found)
    with pytest.raises(ValueError, match="`count` must be at least 0, got -1"):
        forget_sets.draw_rows(DATA, -1, seed=0)


def test_requests_spare_the_last_rows_of_every_cell():
    order = forget_sets.draw_requests(DATA, 10_000, seed=1, spared=3, multiple=100)
    assert len(order) == (len(ALIVE) - 3 * 6) // 100 * 100
    assert len(set(order.tolist())) == len(order)
    whole = forget_sets.draw_requests(DATA, 10_000, seed=1, spared=3, multiple=1)
    left = np.setdiff1d(ALIVE, whole)
    cells = 2 * GROUP[left] + np.asarray(DATA.y)[left]
    np.testing.assert_array_equal(np.bincount(cells), [3] * 6)
    np.testing.assert_array_equal(forget_sets.draw_requests(DATA, 50, seed=1, spared=3), whole[:50])
