"""First-order and noisy unlearning of a network, jitted, mapped over models and on eight devices; other precisions."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from fmu_jax import Objective, make_data, noisy_finetuning, remove
from fmu_jax.removal import recollect
from tests import oracles
from tests.fmu.test_sharding import assert_close, eight
from tests.placing import put

X, Y, S, W, REMOVED, _ = oracles.random_problem(3, 48, 3, remove=0.1, already_removed=5)
DATA, MASK = make_data(X, Y, S, W), put(REMOVED)
KEY = jax.random.key(1)
PLAN = noisy_finetuning.Schedule(start_clip=0.5, noise=0.8, steps=2, step_size=0.1, gradient_clip=1.0, batch=8)


def predict(params, x):
    return jnp.tanh(x @ params["first"]) @ params["last"]


def models(count=2, dtype: Any = float):
    draws = jax.random.normal(KEY, (count, 8))
    return {"first": draws[:, :6].reshape(count, 3, 2).astype(dtype), "last": draws[:, 6:].astype(dtype)}


FAIR = Objective(l2=0.01, fairness=1.0, predict=predict)
PLAIN = Objective(l2=0.01, predict=predict)


def removed(method, **options):
    def run(params, data, mask):
        return remove(FAIR, params, data, mask, method=method, throw=False, **options).params

    return run


def noisy(params, data, mask):
    return noisy_finetuning.finetune(FAIR, params, data, mask, schedule=PLAN, key=KEY).params


def blocks(params, data, mask):
    return noisy_finetuning.finetune_blocks(
        FAIR, params, data, mask, blocks=["first", "last"], start_clip=0.3, noise=1.2, repair_steps=2, key=KEY
    ).params


def recollected(params, data, mask):
    kept = recollect(PLAIN, params, data, steps=2, step_size=0.1, batch=8, key=KEY)
    return remove(PLAIN, kept.params, data, mask, method="hessian_free", vectors=kept.vectors).params


METHODS = {
    "finetune": removed("finetune", steps=2),
    "gradient_ascent": removed("gradient_ascent", steps=2),
    "scrub": removed("scrub", steps=2, ascent_steps=1),
    "trust_region": removed("trust_region", gauss_newton=True, damping=0.1, max_steps=2),
    "hessian_free": recollected,
    "noisy": noisy,
    "blocks": blocks,
}


LONG = ("trust_region", "hessian_free", "blocks")


@pytest.mark.parametrize("method", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in METHODS])
def test_jitted_mapped_and_sharded_is_one_by_one(method):
    run = METHODS[method]
    with jax.numpy_dtype_promotion("standard"):
        alone = [run(jax.tree.map(lambda leaf, k=k: leaf[k], models()), DATA, MASK) for k in range(2)]
        with jax.set_mesh(eight()):
            spread = jax.device_put((DATA, MASK), P("data"))
            many = jax.jit(jax.vmap(run, in_axes=(0, None, None)))(models(), *spread)
    assert_close(jax.device_get(many), jax.device_get(jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone)), 1e-8)


@pytest.mark.parametrize(
    "method",
    [pytest.param(name, marks=pytest.mark.slow if name == "noisy" else pytest.mark.weekly) for name in METHODS],
)
def test_float32_is_float32_and_near_float64(method):
    half = DATA._replace(x=DATA.x.astype(jnp.float32), weight=DATA.weight.astype(jnp.float32))
    first = [jax.tree.map(lambda leaf: leaf[0], models(dtype=dtype)) for dtype in (jnp.float32, float)]
    with jax.numpy_dtype_promotion("standard"):
        low, high = METHODS[method](first[0], half, MASK), METHODS[method](first[1], DATA, MASK)
    assert {leaf.dtype for leaf in jax.tree.leaves(low)} == {jnp.dtype("float32")}
    if method not in ("noisy", "blocks"):  # Another precision draws other noise.
        for a, b in zip(jax.tree.leaves(low), jax.tree.leaves(high), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-3)
