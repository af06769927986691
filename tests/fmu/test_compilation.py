"""Nothing recompiles between forget sets of one data set."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmu_jax import Objective, certify, datasets, fairness_interval, fit, metrics, predict_labels, remove, sample_noise
from fmu_jax.penalties import Penalty
from fmu_jax.removal import METHODS, fit_shards, make_shards

EVENTS = ("/jax/core/compile/jaxpr_trace_duration", "/jax/core/compile/backend_compile_duration")


@contextlib.contextmanager
def counted():
    """Lists the traces and compilations that happen inside."""
    seen = []

    def listen(event, _, **__):
        if event in EVENTS:
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


DATA = datasets.synthetic(400, 5, seed=0).train
OBJECTIVE = Objective(l2=1e-2, fairness=1.0)


@pytest.fixture(scope="module")
def trained():
    noise = sample_noise(DATA.x[0], key=jax.random.key(0), sigma=1.0)
    return fit(OBJECTIVE, DATA, noise=noise).params, noise


def forget_sets():
    """Index sets of several sizes, a list, masks, nothing."""
    rng = np.random.default_rng(1)
    masks = [rng.random(len(DATA.y)) < share for share in (0.02, 0.3)]
    return [rng.choice(len(DATA.y), size, replace=False) for size in (1, 7, 60)] + [[5, 3]] + masks + [[]]


def remove_and_certify(method, params, noise, forget):
    if method == "sharded":
        shard = make_shards(len(DATA.y), 4, key=jax.random.key(1))
        shards = fit_shards(OBJECTIVE, DATA, shard).params
        return remove(OBJECTIVE, shards, DATA, forget, method=method, shard=shard, allow_unfair=True)
    removal = remove(OBJECTIVE, params, DATA, forget, method=method, noise=noise, allow_unfair=True)
    certify(OBJECTIVE, params, removal, sigma=1.0, delta=1e-5, noise=noise)
    fairness_interval(OBJECTIVE, removal, DATA, noise=noise)
    return metrics.group_metrics(predict_labels(OBJECTIVE, removal.params, DATA.x), removal.data)


@pytest.mark.parametrize("method", list(METHODS))
def test_forget_sets_of_any_size_share_what_is_compiled(method, trained):
    sets = forget_sets()
    remove_and_certify(method, *trained, sets[0])
    remove_and_certify(method, *trained, [])
    with counted() as seen:
        for forget in sets:
            remove_and_certify(method, *trained, forget)
    assert seen == []


def test_a_sweep_of_hyper_parameters_shares_what_is_compiled(trained):
    _, noise = trained
    fit(Objective(l2=1e-2, fairness=1.0), DATA, noise=noise)
    with counted() as seen:
        for l2, fairness in ((1e-1, 0.0), (1e-4, 10.0), (1e-3, 100.0)):
            fit(Objective(l2=l2, fairness=fairness), DATA, noise=noise)
    assert seen == []


def test_a_sweep_of_group_penalties_shares_what_is_compiled(trained):
    params, noise = trained
    remove(OBJECTIVE, params, DATA, [1], noise=noise)
    with counted() as seen:
        for penalty in ("demographic_parity", "equal_opportunity", Penalty(np.array([[1.0, 0.5], [0.5, 1.0]]))):
            remove(Objective(l2=1e-2, fairness=1.0, penalty=penalty), params, DATA, [1], noise=noise)
    assert seen == []


def test_the_counter_counts(trained):
    """A new shape, and a penalty of another form, are seen."""
    params, noise = trained
    shorter = jax.tree.map(lambda leaf: leaf[:-1], DATA)
    with counted() as seen:
        remove(OBJECTIVE, params, shorter, jnp.array([1, 2]), noise=noise)
    assert set(seen) == set(EVENTS)
    with counted() as seen:
        remove(Objective(l2=1e-2, fairness=1.0, penalty="individual"), params, DATA, [1], noise=noise)
    assert set(seen) == set(EVENTS)
