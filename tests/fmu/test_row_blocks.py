"""Many rows in blocks: the same numbers, the same derivatives, sound error bounds, and no copy of the rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmu_jax import Objective, certify, datasets, fairness_interval, fit, remove, rounding, row_blocks, sample_noise
from fmu_jax.curvature import hessian_with_error
from fmu_jax.data import Data
from tests import oracles
from tests.placing import put

#: One row, fewer than blocks, a rest after blocks, and pieces with a rest.
SIZES = [1, 40, 1003, 960 * 101]


def cut_few_rows(monkeypatch):
    """Blocks of however few rows: here half as many as on an accelerator, so that both sizes are told apart."""
    monkeypatch.setattr(row_blocks, "LEAST", 1)
    monkeypatch.setattr(row_blocks, "CPU_LEAST", 1)
    monkeypatch.setattr(row_blocks, "CPU_NUMBERS", 1)
    monkeypatch.setattr(row_blocks, "CPU_MOST_BLOCKS", 32)


@pytest.fixture
def in_blocks(monkeypatch):
    """However few, rows are worked on in blocks; callers use sizes of their own, as programs are kept by shape."""
    cut_few_rows(monkeypatch)


def table(n, d, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)).astype(dtype)
    return x, rng.uniform(0, 1, n).astype(dtype)


@pytest.mark.parametrize("n", SIZES)
def test_sums_maxima_and_rows_are_those_of_all_rows(n, in_blocks):
    @jax.jit
    def found(x, w):
        return (
            row_blocks.gram(x, w),
            rounding.block_gram(x, w),
            rounding.row_sum(lambda x, w: x * w[:, None], x, w),
            row_blocks.largest(lambda x, w: x[:, 0] * w, x, w),
            row_blocks.by_row(lambda x, w: x[:, 1] * w, x, w),
        )

    x, w = table(n, 3)
    here, elsewhere = row_blocks.cpu_block_rows(n, 3), row_blocks.block_rows(n, 3)
    assert n == 1 or (elsewhere == here < n if n % 960 == 0 else elsewhere < here < n)
    gram, block_gram, total, largest, by_row = found(x, w)
    np.testing.assert_allclose(gram, (x * w[:, None]).T @ x, rtol=1e-11)
    np.testing.assert_allclose(block_gram, (x * w[:, None]).T @ x, rtol=1e-11)
    np.testing.assert_allclose(total, w @ x, atol=1e-10)
    assert float(largest) == (x[:, 0] * w).max()
    np.testing.assert_array_equal(by_row, x[:, 1] * w)


@pytest.fixture
def in_whole_tiles(monkeypatch):
    """Rows are worked on in two blocks of whole tiles, of which the second is smaller."""
    cut_few_rows(monkeypatch)
    monkeypatch.setattr(row_blocks, "MOST_BLOCKS", 2)
    n = 3 * 960 * row_blocks.TILE
    assert row_blocks.block_rows(n, 8) == row_blocks.cpu_block_rows(n, 8) == 2 * 960 * row_blocks.TILE
    return n


@pytest.mark.parametrize("d", [3, 8, 11])
def test_whole_tiles_are_the_same_rows_however_a_platform_lays_them(in_whole_tiles, d):
    x, w = table(in_whole_tiles, d, dtype=np.float32)
    pieces = x.reshape(960, -1, d)
    for begin, count in ((0, 256), (256, 128), (128, 128)):
        expected = pieces[:, begin : begin + count].reshape(-1, d)
        for cut in (row_blocks._by_row, row_blocks._by_column, row_blocks._part):
            found = jax.jit(cut, static_argnames="count")(x, jnp.int32(begin), count=count)
            np.testing.assert_array_equal(found, expected, err_msg=cut.__name__)
        found = row_blocks._by_row(put(w), jnp.int32(begin), count=count)
        np.testing.assert_array_equal(found, w.reshape(960, -1)[:, begin : begin + count].reshape(-1))


@pytest.mark.parametrize("d", [3, 8, 11])
def test_rows_by_number_are_the_same_however_a_platform_lays_them(in_whole_tiles, d):
    x, _ = table(in_whole_tiles, d, dtype=np.float32)
    n = len(x)
    numbers = np.random.default_rng(2).integers(0, n, 40).astype(np.int32)
    numbers[:5] = 0, n - 1, n // 960, n // 960 - 1, 127
    for at in (row_blocks.rows_at, row_blocks._at_by_column):
        np.testing.assert_array_equal(jax.jit(at)(x, numbers), x[numbers], err_msg=at.__name__)


def test_sums_in_whole_tiles_are_those_of_all_rows(in_whole_tiles):
    x, w = table(in_whole_tiles, 8, seed=1)
    total = jax.jit(lambda x, w: rounding.row_sum(lambda x, w: x * w[:, None], x, w))(x, w)
    np.testing.assert_allclose(total, w @ x, rtol=1e-12, atol=1e-9)
    by_row = jax.jit(lambda x, w: row_blocks.by_row(lambda x, w: x[:, 1] * w, x, w))(x, w)
    np.testing.assert_array_equal(by_row, x[:, 1] * w)


@pytest.mark.parametrize("n", [1, 20, 1003, 128, 128 * 31, 128 * 33, 960 * 40, 960 * 101, 960 * 128, 960 * 128 * 65])
def test_a_sum_adds_no_more_often_than_its_depth(n):
    """Reductions one after another: each adds its terms in whatever order, so as many roundings as terms less one."""
    program = jax.make_jaxpr(rounding.block_sum)(jax.ShapeDtypeStruct((n, 3), np.float32)).jaxpr
    found = 0
    for equation in program.eqns:
        if equation.primitive.name == "reduce_sum":
            found += np.prod([equation.invars[0].aval.shape[axis] for axis in equation.params["axes"]]) - 1
    assert np.log2(n) <= found <= rounding.depth(n)


def test_the_sum_of_no_rows_is_zero():
    np.testing.assert_array_equal(rounding.block_sum(jnp.zeros((0, 3))), np.zeros(3))


@pytest.mark.parametrize("n", [1003, 960 * 64])
def test_derivatives_of_both_modes_are_those_of_all_rows(n, in_blocks):
    x, w = table(n, 3)
    c = np.arange(9.0).reshape(3, 3)

    def derivatives(gram):
        def value(x, w):
            return jnp.vdot(c, gram(x, w))

        return jax.jit(lambda *at: (jax.grad(value, (0, 1))(*at), jax.jvp(value, at, at)[1]))(x, w)

    (ours, tangent), (theirs, expected) = map(derivatives, (row_blocks.gram, lambda x, w: (x * w[:, None]).T @ x))
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(tangent, expected, rtol=1e-10)


def everything(n, penalty="equalized_odds"):
    data = datasets.synthetic(n, 3, seed=0).train
    objective = Objective(l2=1e-2, fairness=1.0, penalty=penalty)
    noise = sample_noise(data.x[0], key=jax.random.key(0), sigma=1.0)
    params = fit(objective, data, noise=noise).params
    removal = remove(objective, params, data, [3, 14, 15], noise=noise)
    certificate = certify(objective, params, removal, sigma=1.0, delta=1e-5, noise=noise)
    return data, objective, noise, removal, certificate, fairness_interval(objective, removal, data, noise=noise)


@pytest.mark.parametrize(
    "penalty",
    [pytest.param("equalized_odds", marks=pytest.mark.weekly), pytest.param("individual", marks=pytest.mark.slow)],
)
def test_certificates_are_those_of_all_rows_and_of_the_oracle(monkeypatch, penalty):
    whole = everything(1250, penalty)
    cut_few_rows(monkeypatch)
    with jax.numpy_rank_promotion("warn"):  # Warnings are errors; under another setting programs are traced anew.
        _, objective, noise, removal, certificate, interval = everything(1250, penalty)
    for mine, theirs in zip(jax.tree.leaves((certificate, interval)), jax.tree.leaves(whole[4:]), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(removal.params, whole[3].params, rtol=1e-9)
    kept = removal.data
    problem = (kept.x, kept.y, kept.group, kept.weight, objective.l2, objective.fairness, penalty)
    problem = [np.asarray(part) if isinstance(part, jax.Array) else part for part in problem]
    residual = oracles.residual_norm(np.asarray(removal.params), *problem, noise=np.asarray(noise), fast=True)
    margin = float(certificate.rounding_margin)
    assert residual <= float(certificate.residual_norm) <= residual * (1 + 1e-6) + 2 * margin


@pytest.mark.parametrize("n", [1005, 960 * 65])
def test_bounds_on_rounding_hold_for_blocks(n, in_blocks):
    x, w = table(n, 4, seed=1, dtype=np.float32)
    y, group = (x[:, k] > 0 for k in (0, 1))
    data = Data(x, y.astype(np.int32), group.astype(np.int32), (w > 0.1).astype(np.float32))
    objective, params = Objective(l2=1e-3, fairness=1.0), np.asarray([0.3, -1.0, 2.0, 0.1], np.float32)
    wide, weight = params.astype(np.float64), data.weight.astype(np.float64)
    problem = (x.astype(np.float64), data.y, data.group, weight, 1e-3, 1.0, "equalized_odds")
    grad, margin = jax.jit(rounding.gradient_with_error)(objective, params, data, None)
    off = np.linalg.norm(np.asarray(grad, np.float64) - oracles.gradient(wide, *problem, fast=True))
    assert 0 < off <= float(margin)
    curved = jax.jit(hessian_with_error)(objective, params, data)
    scale = np.asarray(curved.scale, np.float64)
    difference = oracles.hessian(wide, *problem, fast=True) - np.asarray(curved.matrix, np.float64)
    assert np.linalg.eigvalsh(scale[:, None] * difference * scale).min() >= -float(curved.error)


@pytest.mark.parametrize("method", ["fit", "fair_newton", "projective", "certify"])
def test_no_copy_of_many_rows_is_made(method):
    n, d = 960 * 1000, 64
    rows, codes = jax.ShapeDtypeStruct((n,), jnp.float32), jax.ShapeDtypeStruct((n,), jnp.int32)
    data = Data(jax.ShapeDtypeStruct((n, d), jnp.float32), codes, codes, rows)
    vector, objective = jax.ShapeDtypeStruct((d,), jnp.float32), Objective(l2=1e-4, fairness=1.0)

    def run(params, data, forget, noise):
        if method == "fit":
            return fit(objective, data, noise=noise, throw=False).params
        plain = {"allow_unfair": True} if method == "projective" else {"noise": noise}
        chosen = "fair_newton" if method == "certify" else method
        removal = remove(objective, params, data, forget, method=chosen, throw=False, **plain)
        if method != "certify":
            return removal.params
        return certify(objective, params, removal, sigma=1.0, delta=1e-5, noise=noise)

    forget = jax.ShapeDtypeStruct((n,), bool)
    memory = jax.jit(run).lower(vector, data, forget, vector).compile().memory_analysis()
    assert memory.temp_size_in_bytes <= memory.argument_size_in_bytes / 2


@pytest.mark.parametrize(("n", "d"), [(2**26, 64), (960 * 128 * 814, 64), (960 * 1000, 64), (336, 10**5)])
@pytest.mark.parametrize("block", ["block_rows", "cpu_block_rows"])
def test_blocks_are_whole_tiles_of_each_piece(n, d, block):
    size, number = getattr(row_blocks, block)(n, d), row_blocks.piece_count(n)
    rows = size // number
    assert size == rows * number < n
    assert -(-n // size) <= (
        row_blocks.CPU_MOST_BLOCKS if (block, number) == ("cpu_block_rows", 1) else row_blocks.MOST_BLOCKS
    )
    assert rows % 128 == 0 or rows <= 64


def test_a_block_on_a_cpu_stays_in_its_cache_and_an_accelerators_does_not_change():
    """37,157 x 21 is one block for an accelerator and eleven here; 10^8 x 64 would be too many of the small ones."""
    assert row_blocks.block_rows(37157, 21) == 37157
    assert -(-37157 // row_blocks.cpu_block_rows(37157, 21)) == 11
    assert row_blocks.cpu_block_rows(2000, 100) == 2000
    assert row_blocks.block_rows(10**8, 64) == row_blocks.whole_tiles(-(-(10**8) // 64))


def test_each_platform_has_blocks_of_its_size():
    """The program for a TPU loops over its large blocks; that of the CPU, over the small ones."""
    shapes = jax.ShapeDtypeStruct((37157, 21), np.float32), jax.ShapeDtypeStruct((37157,), np.float32)
    told = {
        platform: jax.export.export(jax.jit(row_blocks.gram), platforms=[platform])(*shapes).mlir_module()
        for platform in ("cpu", "tpu", "cuda")
    }
    assert "while" in told["cpu"]
    assert "while" not in told["tpu"] + told["cuda"]


def longest_product(jaxpr):
    """The most numbers that one entry of a matrix product adds, anywhere in a program."""
    found = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (axes, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            found = max(found, int(np.prod([shape[axis] for axis in axes])))
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda leaf: hasattr(leaf, "eqns")):
            if hasattr(inner := getattr(inner, "jaxpr", inner), "eqns"):
                found = max(found, longest_product(inner))
    return found


@pytest.mark.parametrize(
    ("n", "d"), [(20, 3), (10**4, 64), (960 * 40, 64), (960 * 33 * 65, 64), (960 * (64 * 1627 + 5), 64), (10**8, 64)]
)
def test_products_add_no_more_rows_than_their_bound_counts(n, d):
    """What is left after the blocks too: it once was one product of far more rows than a block's."""
    rows = jax.ShapeDtypeStruct((n, d), np.float32), jax.ShapeDtypeStruct((n,), np.float32)
    longest = longest_product(jax.make_jaxpr(rounding.block_gram)(*rows).jaxpr)
    assert 0 < longest <= max(4 * d, 64)
    assert longest + 1 <= rounding.gram_depth(n, d) <= longest + 32
