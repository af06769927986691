"""Batches of one size against a loop, and NumPy's summary of few rows against the compiled one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmu_jax import data as rows
from fmu_jax.batches import map_in_batches


@pytest.mark.parametrize(("count", "size"), [(1, 4), (4, 4), (5, 4), (7, 3), (9, 100)])
def test_batches_give_each_element_what_a_loop_gives_it(count, size):
    keys, x = jax.random.split(jax.random.key(0), count), jnp.arange(3.0 * count).reshape(count, 3)
    found = map_in_batches(lambda each: (each[1].sum(), jax.random.uniform(each[0])), (keys, x), batch_size=size)
    np.testing.assert_array_equal(found[0], np.asarray(x).sum(1))
    np.testing.assert_array_equal(found[1], [jax.random.uniform(key) for key in keys])


def test_few_rows_are_summarised_as_many_are():
    """Labels, groups and weights that are out of range, and a feature that is not finite, by both ways."""
    rng = np.random.default_rng(0)
    y, group, weight = rng.integers(-1, 3, 50), rng.integers(-1, 4, 50), rng.choice([0.0, 0.5, 1.0], 50)
    x = np.where(np.arange(50) == 7, np.nan, 1.0)[:, None]
    table = rows.Data(*map(jnp.asarray, (x, y.astype(np.int32), group.astype(np.int32), weight)), groups=3)
    few, many = rows.summarise(table), jax.device_get(rows._summarise(table))
    for name, one, other in zip(few._fields, few, many, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=name)
    expected = [[((weight > 0) & (group == g) & (y == label)).sum() for label in (0, 1)] for g in range(3)]
    np.testing.assert_array_equal(few.counts, expected)
    assert (few.finite, few.bad_labels) == (False, ((y < 0) | (y > 1)).sum())
