"""Made-up rows of any number, with a group disparity that one number controls."""

import jax
import numpy as np

from fmu_jax.data import make_data
from fmu_jax.datasets.split import Split, float_dtype, rounding_margin
from fmu_jax.datasets.table import count_test_rows

BLOCK_ROWS = 1 << 16
MARGIN = 2.0
"""Norm of the true coefficients: how well the features predict the label."""


def synthetic(
    n: int,
    d: int,
    *,
    seed: int,
    group_share: float = 0.3,
    disparity: float = 1.0,
    test_fraction: float = 0.2,
) -> Split:
    """Draws n rows of d features, two groups and logistic labels.

    Rule: ``s ~ Bernoulli(group_share)``; ``x | s ~ N(disparity (s - 1/2) u, I)`` with a random unit vector u;
    ``y ~ Bernoulli(sigmoid(x.a + disparity (s - 1/2)))`` with a random a of norm 2, where ``u.a >= 0``. So with
    disparity 0 neither the features nor the label depend on the group; with disparity > 0 the means of the groups lie
    that far apart, and group 1 has the higher base rate. Then all rows are divided by the largest train-row norm. The
    rows are independent, so the last ones serve as test rows.

    Memory: rows are drawn in blocks into the final arrays, so that never more than about twice their size is in use.

    Args:
      n: Number of rows, at least 10.
      d: Number of features without the bias, at least 1; the rows have d + 1 columns.
      seed: Seed of ``numpy.random.default_rng``.
      group_share: Expected share of group 1, in (0, 1).
      disparity: Difference between the groups, at least 0.
      test_fraction: Share of test rows, in (0, 1).

    Returns:
      The ``Split``; features are named x0, x1, ...

    Raises:
      ValueError: An argument is outside its range, or a drawn group or label is empty.

    >>> split = synthetic(1000, 3, seed=0)
    >>> split.train.x.shape, split.test.x.shape, split.feature_names
    ((800, 4), (200, 4), ('x0', 'x1', 'x2', 'bias'))
    """
    for name, value, good, rule in (
        ("n", n, n >= 10, "at least 10"),
        ("d", d, d >= 1, "at least 1"),
        ("group_share", group_share, 0 < group_share < 1, "between 0 and 1 (exclusive)"),
        ("disparity", disparity, 0 <= disparity < np.inf, "finite and at least 0"),
    ):
        if not good:
            raise ValueError(f"{name} must be {rule}, got {value}")
    train_rows = n - count_test_rows(n, test_fraction)
    rng = np.random.default_rng(seed)
    shift, coefficients = rng.standard_normal((2, d))
    shift *= np.copysign(disparity / np.linalg.norm(shift), shift @ coefficients)
    coefficients *= MARGIN / np.linalg.norm(coefficients)
    parts = [empty_rows(rows, d) for rows in (train_rows, n - train_rows)]
    largest = 0.0
    for is_train, (x, y, group) in zip((True, False), parts, strict=True):
        for start in range(0, len(y), BLOCK_ROWS):
            block = slice(start, min(start + BLOCK_ROWS, len(y)))
            rows, y[block], group[block] = draw_block(
                rng, block.stop - start, shift=shift, coefficients=coefficients, share=group_share, disparity=disparity
            )
            x[block, :-1] = rows
            if is_train:
                largest = max(largest, float(np.linalg.norm(rows, axis=1).max()))
    scale = largest * (1 + rounding_margin())
    for x, _, _ in parts:
        x[:, :-1] /= x.dtype.type(scale)
    # `device_put` takes aligned rows over without a copy on a CPU; nothing writes to them from here on.
    train, test = (make_data(jax.device_put(x), y, group) for x, y, group in parts)
    return Split(
        train=train,
        test=test,
        feature_names=(*(f"x{i}" for i in range(d)), "bias"),
        label_name="label",
        label_values=("0", "1"),
        group_name="group",
        group_values=("0", "1"),
        center=np.zeros(d),
        scale=np.full(d, scale),
        scaling="maxnorm",
        train_rows=np.arange(train_rows),
        test_rows=np.arange(train_rows, n),
        source="synthetic",
    )


def empty_rows(n: int, d: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Room for n rows: features with the bias ``(n, d + 1)`` in JAX's default float, labels and groups int32.

    The features start at a multiple of 64 bytes: JAX on a CPU can then use them in place.
    """
    dtype = float_dtype()
    size = n * (d + 1) * dtype.itemsize
    room = np.empty(size + 64, np.uint8)
    start = -room.ctypes.data % 64
    x = room[start : start + size].view(dtype).reshape(n, d + 1)
    x[:, -1] = 1
    return x, np.empty(n, np.int32), np.empty(n, np.int32)


def draw_block(
    rng: np.random.Generator, rows: int, *, shift: np.ndarray, coefficients: np.ndarray, share: float, disparity: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws unscaled features ``(rows, d)`` float64, labels and groups ``(rows,)`` int32."""
    group = rng.random(rows) < share
    side = group - 0.5
    x = rng.standard_normal((rows, len(shift)))
    x += side[:, None] * shift
    logit = x @ coefficients + disparity * side
    y = rng.random(rows) < 1 / (1 + np.exp(-logit))
    return x, y.astype(np.int32), group.astype(np.int32)
