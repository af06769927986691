"""Rows on eight devices: the same answers as on one, and no device ever sees the rows of another."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import fmu_jax
from fmu_jax import (
    Data,
    Objective,
    distances,
    fitting,
    metrics,
    moments,
    output_perturbation,
    rounding,
    sharding,
    stream,
)
from fmu_jax import certificates as certifying
from fmu_jax.removal.methods import METHODS
from tests.placing import put

OPTIONS = {"descent": {"steps": 20}}
FORGET = np.arange(0, 300, 3)
COLLECTIVE = re.compile(r"= (.*?) (all-reduce|all-gather|collective-permute|all-to-all|reduce-scatter)(?:-start)?\(")
BYTES = {"pred": 1, "s32": 4, "u32": 4, "f32": 4, "f64": 8}


@functools.cache
def rows(n, d=6):
    draw = np.random.default_rng(0)
    x = draw.normal(size=(n, d)) / np.sqrt(d)
    x[:, -1] = 1
    group = (draw.random(n) < 0.4).astype(np.int32)
    y = (x[:, 0] + 0.5 * group + 0.5 * draw.normal(size=n) > 0).astype(np.int32)
    return Data(put(x), put(y), put(group), jnp.ones(n))


def eight():
    return jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


def both(function, data):
    """What a function of the data gives on one device and on eight."""
    alone = jax.device_get(function(data))
    with jax.set_mesh(eight()):
        spread = function(jax.device_put(data, P("data")))
        return alone, jax.device_get(spread), spread


def assert_close(got, wanted, tolerance=1e-10):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        scale = np.abs(b).max() if np.size(b) else 0.0
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * scale)


def train(objective, data):
    noise = jnp.linspace(-1.0, 1.0, data.x.shape[1])
    return fmu_jax.fit(objective, data, noise=noise, tolerance=1e-13, max_steps=50, throw=False).params, noise


@pytest.mark.parametrize(
    ("method", "n"),
    [
        pytest.param("fair_newton", 960 * 32, marks=pytest.mark.slow),
        pytest.param("descent", 1_000, marks=pytest.mark.slow),
        # All of one step solve as fair_newton does.
        *(pytest.param(method, 1_000, marks=pytest.mark.slow) for method in ("influence", "newton", "projective")),
        ("fair_newton", 1_000),
        ("retrain", 1_000),
    ],
)
def test_a_certified_removal(method, n):
    objective = Objective(l2=1e-3, fairness=1.0)

    def answer(data):
        params, noise = train(objective, data)
        options = OPTIONS.get(method, {})
        removal = fmu_jax.remove(
            objective, params, data, FORGET, method=method, noise=noise, allow_unfair=True, throw=False, **options
        )
        certificate = fmu_jax.certify(objective, params, removal, sigma=1.0, delta=1e-5, noise=noise)
        interval = fmu_jax.fairness_interval(objective, removal, data, noise=noise)
        gaps = metrics.group_metrics(fmu_jax.predict_labels(objective, removal.params, data.x), removal.data)
        return removal, certificate, interval, gaps

    alone, spread, placed = both(answer, rows(n))
    assert placed[0].data.x.sharding.spec == P("data")
    assert placed[0].params.sharding.spec == P()
    assert_close(spread[0].params, alone[0].params)
    assert_close((spread[2], spread[3]), (alone[2], alone[3]))
    # What is left of a gradient after a step is a difference of large sums: known to its rounding margin.
    for name in ("row_bound", "gram_bound", "paper_data_dependent", "paper_worst_case", "rounding_margin"):
        assert_close(getattr(spread[1], name), getattr(alone[1], name), 1e-6)
    margin = alone[1].rounding_margin + spread[1].rounding_margin
    assert abs(spread[1].residual_norm - alone[1].residual_norm) <= margin


@pytest.mark.parametrize(
    ("penalty", "reweigh", "n"),
    [("equalized_odds", False, 960 * 32), ("individual", True, 1_000)],
)
@pytest.mark.slow
def test_a_stream(penalty, reweigh, n):
    objective = Objective(l2=1e-3, fairness=1.0, penalty=penalty, reweigh=reweigh)

    def answer(data):
        noise = jnp.linspace(-1.0, 1.0, data.x.shape[1])
        fitted = fmu_jax.fit(objective, data, noise=noise)
        state = stream.start(objective, fitted, data, noise=noise, sigma=1.0, delta=1e-5, budget=1.0)
        taken, left = stream.take(data, FORGET)
        deleted = stream.delete(state, taken)
        return state.moments, deleted.params, deleted.residual_bound, stream.refresh(deleted, left).params

    alone, spread, _ = both(answer, rows(n))
    assert_close(spread[0]._replace(errors=None), alone[0]._replace(errors=None))
    assert_close((spread[1], spread[3]), (alone[1], alone[3]))
    assert_close((spread[0].errors, spread[2]), (alone[0].errors, alone[2]), 1e-6)


@pytest.mark.slow
def test_published_noise():
    objective = Objective(l2=1e-2, fairness=1.0)

    def answer(data):
        params, _ = train(objective, data)
        removal = fmu_jax.remove(objective, params, data, FORGET, method="descent", steps=20)
        return output_perturbation.certify_descent(objective, params, removal, steps=20, publish_sigma=0.1, delta=1e-5)

    alone, spread, _ = both(answer, rows(1_000))
    assert_close(spread, alone, 1e-6)


def collectives(compiled):
    """Bytes that each collective of a program hands over."""
    found = []
    for line in compiled.as_text().splitlines():
        if match := COLLECTIVE.search(line):
            shapes = re.findall(r"(pred|[suf]\d+)\[([\d,]*)\]", match[1])
            found.append(sum(BYTES[kind] * math.prod(map(int, filter(None, dims.split(",")))) for kind, dims in shapes))
    return sorted(found)


PROGRAMS = {
    "a Newton step of fit": lambda o, p, d, b: fitting.minimise.lower(o, p, d, b, 1e-10, 1, True),
    "fair_newton": lambda o, p, d, b: METHODS["fair_newton"].run.lower(o, p, d, d, noise=b),
    "gradient with error": lambda o, p, d, b: jax.jit(rounding.gradient_with_error).lower(o, p, d, b),
    "moments": lambda o, p, d, b: jax.jit(moments.moments).lower(o, p, d),
    "region": lambda o, p, d, b: distances._region.lower(o, removal_of(p, d), b),
    "certificate": lambda o, p, d, b: certifying._certify.lower(
        o, p, removal_of(p, d), distances.Region(*jnp.ones((4, *p.shape))[:, 0], jnp.eye(p.shape[0])), 1.0, 1e-5, b
    ),
}


def removal_of(params, data):
    nothing = jnp.zeros(data.y.shape, bool)
    return fmu_jax.Removal(params, data, nothing, params, jnp.ones((), bool), jnp.zeros(()), jnp.zeros((), jnp.int32))


@pytest.mark.parametrize(
    "program",  # A region has a gradient with its error inside.
    [pytest.param(name, marks=pytest.mark.weekly if name == "gradient with error" else []) for name in PROGRAMS],
)
def test_what_devices_tell_each_other_does_not_grow_with_the_rows(program):
    d, told = 6, {}
    with jax.set_mesh(eight()):
        objective, params, noise = Objective(l2=1e-3, fairness=1.0), jnp.ones(d), jnp.ones(d)
        for n in (960 * 64, 960 * 320):  # Grams of fewer rows are one product: less is told.
            data = jax.device_put(rows(n, d), P("data"))
            told[n] = collectives(PROGRAMS[program](objective, params, data, noise).compile())
    assert len({tuple(sizes) for sizes in told.values()}) == 1
    assert 0 < len(told[960 * 64]) < 40
    assert max(told[960 * 64]) <= 8 * 960 * 4 * d  # Sums of pieces, far fewer numbers than rows.


# -------------------------------------------------------------------------------------------------- placing of rows
@pytest.mark.parametrize(("count", "padded"), [(1, 8), (8, 8), (9, 16), (30_719, 30_720), (30_721, 31_680)])
def test_rows_are_filled_up_with_zeros_and_lie_over_the_axis_of_the_sharding(count, padded):
    table = {"x": np.ones((count, 2)), "weight": jnp.ones(count)}
    mesh = jax.make_mesh((8,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    over_rows = jax.sharding.NamedSharding(mesh, P("rows"))
    placed = sharding.place_rows(table, over_rows)
    assert {leaf.sharding for leaf in placed.values()} == {over_rows}
    assert {part.data.shape for part in placed["x"].addressable_shards} == {(padded // 8, 2)}
    here = sharding.on_host(placed)
    for name, leaf in table.items():
        np.testing.assert_array_equal(here[name][:count], leaf)
        assert len(here[name]) == padded
        assert not here[name][count:].any()


def test_one_axis_of_a_mesh_is_as_many_pieces_as_it_is_long():
    mesh = jax.make_mesh((2, 4), ("models", "rows"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    for spec, padded in ((P("rows"), 8), (P("models"), 6), (P(("models", "rows")), 8), (P(), 5)):
        placed = sharding.place_process_rows(np.arange(5), jax.sharding.NamedSharding(mesh, spec))
        np.testing.assert_array_equal(sharding.on_host(placed), [*range(5), *[0] * (padded - 5)])
        assert sharding.first_row(placed) == 0
    assert sharding.gather(["own"]) == [["own"]]
    with pytest.raises(ValueError, match="`count` must be at least 1, the number of devices, got 0"):
        sharding.pad_rows(np.arange(5), 0)


@pytest.mark.parametrize(
    ("n", "devices", "unit"), [(1_000, 3, 3), (40_000, 8, 960), (300_000, 7, 6_720), (4 * 10**6, 16, 960 * 128)]
)
def test_rows_are_filled_up_to_what_devices_blocks_and_tiles_divide(n, devices, unit):
    padded = len(sharding.pad_rows(np.zeros(n, bool), devices))
    assert padded == n + -n % unit
    assert padded < n * 1.032


def test_work_is_done_side_by_side_each_item_on_a_mesh_of_its_own():
    meshes = [jax.sharding.Mesh(np.array(jax.devices()[2 * k : 2 * k + 2]), ("rows",)) for k in range(2)]
    used = {}

    def work(item):
        used[item] = jax.sharding.get_mesh()

    assert sorted(sharding.each(range(6), work, meshes)) == list(range(6))
    assert set(used.values()) <= set(meshes)

    def fail(item):
        raise OSError(f"item {item}")

    with pytest.raises(OSError, match="item"):
        list(sharding.each(range(6), fail, meshes))
