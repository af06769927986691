"""Every public function under jit with data closed over and as an argument, vmap, scan and both modes of grad.

One table: a row is a function of the data and of named numbers, each of which is traced. The derivative in a number is
tested, in forward and in reverse mode, against central differences of the eager function's own values in float64. Step
functions (labels, group rates) are in it too: their derivative is zero. What is costly to compile is traced only: that
is where a check that looks at a tracer, or a loop that has no reverse mode, fails.
"""

import inspect
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fmu_jax
from fmu_jax import (
    Data,
    Objective,
    audit,
    certificates,
    distances,
    heads,
    intervals,
    metrics,
    noisy_finetuning,
    output_perturbation,
    privacy,
    releases,
    sharding,
    spectrum,
    stream,
    thresholds,
)
from fmu_jax import removal as removals
from fmu_jax.audit import binomial, roc
from fmu_jax.conjugate_gradients import conjugate_gradients
from tests.placing import drawn_like, put

N, D = 24, 3
KEY = jax.random.key(0)


def make(seed=0):
    rng = np.random.default_rng(seed)
    x = np.concatenate([rng.normal(size=(N, D - 1)), np.ones((N, 1))], axis=1)
    return fmu_jax.make_data(x, np.arange(N) % 2, np.arange(N) // 2 % 2)


def drawn(*size):
    """By NumPy: every worker makes these, and only one runs what they are for."""
    return put(np.random.default_rng([len(size), *size]).normal(size=size))


DATA = make()
FORGET = np.arange(N) < 2
NOISE = put(np.asarray(drawn(D)) / 2)
PARAMS = jnp.array([0.3, -0.4, 0.1])
SCORES = drawn(N)
SHAPE = put(np.diag(np.arange(1.0, 4.0)) + 0.1)
MATRIX = put(np.diag(np.arange(1.0, 6.0)) + 0.1)
DRAWN = drawn(64, 3)
SHARD = put(np.random.default_rng(0).permutation(N).reshape(2, -1).astype(np.int32))
MARGINS = drawn(8, 3)
SCHEDULE = noisy_finetuning.Schedule(start_clip=0.5, noise=0.8, steps=2, step_size=0.1, gradient_clip=1.0, batch=4)
MODEL = nn.Sequential([nn.Dense(2, param_dtype=float), nn.tanh, nn.Dense(1, param_dtype=float)])
WEIGHTS = drawn_like(MODEL.init, DATA.x)


def network(params, x):
    scores: Any = MODEL.apply(params, x)
    return scores[:, 0]


def linear(l2, fairness=1.0, **more):
    return Objective(l2=l2, fairness=fairness, **more)


def moved(data: Data, x=None) -> Data:
    return data if x is None else data._replace(x=x)


def fitted(data, l2, fairness, noise, x):
    return fmu_jax.fit(linear(l2, fairness), moved(data, x), noise=noise)


def removed(data, l2=0.1, fairness=1.0, params=PARAMS, noise=None, x=None, method="fair_newton", reweigh=False, **more):
    objective = linear(l2, fairness, reweigh=reweigh)
    return fmu_jax.remove(
        objective, params, moved(data, x), FORGET, method=method, noise=noise, allow_unfair=True, **more
    )


def certified(data, l2, fairness, params, noise, x, sigma, delta, **more):
    removal = removed(data, l2, fairness, params, noise, x, **more)
    return fmu_jax.certify(linear(l2, fairness, **more), params, removal, sigma=sigma, delta=delta, noise=noise)


def descended(data, l2, params, publish_sigma, delta, step_size):
    removal = removed(data, l2, 1.0, params, method="descent", steps=3, step_size=step_size)
    return fmu_jax.certify_descent(
        linear(l2), params, removal, publish_sigma=publish_sigma, delta=delta, steps=3, step_size=step_size
    )


def region(data, params, l2):
    return distances.retrained_region(linear(l2), removed(data, l2, params=params))


def streamed(data, l2, fairness, noise, sigma, delta, params, forget=None):
    fit = fmu_jax.FitResult(params, jnp.ones((), bool), jnp.zeros(()), jnp.zeros((), jnp.int32))
    state = stream.start(linear(l2, fairness), fit, data, noise=noise, sigma=sigma, delta=delta, budget=0.1)
    return state if forget is None else stream.delete(state, jax.tree.map(lambda leaf: leaf[forget], data))


def one_vs_rest(data, x):
    return heads.one_vs_rest(x, np.arange(N) % 3, np.arange(N) // 3 % 2, classes=3, groups=2)


def headed(data, params, l2, x):
    many = one_vs_rest(data, x)
    return linear(l2), many, heads.remove_head(linear(l2), params, many, FORGET)


def certified_head(data, params, l2, x, sigma, delta):
    objective, _, removal = headed(data, params, l2, x)
    return heads.certify_head(objective, params, removal, sigma=sigma, delta=delta, noise=params)


def each(residual_norm, sigma):
    numbers = dict.fromkeys(certificates._CERTIFICATE_FIELDS, residual_norm) | {"delta": jnp.full(2, 1e-5)}
    return fmu_jax.Certificate(**numbers | {"sigma": jnp.full(2, sigma)}, dtype="float64")


def eigenvalues(data, matrix):
    return spectrum.extreme_eigenvalues(lambda v: (matrix + matrix.T) @ v, jnp.arange(1.0, 6.0), steps=5)


def network_fitted(data, l2, params):
    with jax.numpy_dtype_promotion("standard"):  # optax counts its steps in int32
        return fmu_jax.fit(linear(l2, predict=network), data, init=params, throw=False, only="bias")


def network_removed(data, params, damping, l2, x, **more):
    objective = linear(l2, predict=network)
    return fmu_jax.remove(objective, params, moved(data, x), FORGET, damping=damping, throw=False, **more)


def network_descended(data, method, params, l2, x, learning_rate):
    objective, options = linear(l2, predict=network), {"steps": 2, "learning_rate": learning_rate}
    return fmu_jax.remove(objective, params, moved(data, x), FORGET, method=method, **options).params


class Row(NamedTuple):
    """``call(data, **at)``; every float that it returns is differentiated in every name of ``at``."""

    name: str
    call: Callable[..., Any]
    at: dict[str, Any]
    traced_only: bool = False
    slow: bool = False


HYPER = {"l2": 0.1, "fairness": 0.7}
ONE = {"params": PARAMS, "l2": 0.1}
LINEAR = HYPER | {"params": PARAMS, "x": DATA.x}
SPENT = {"residual": 0.3, "sigma": 1.2, "delta": 1e-3}
STREAM = HYPER | {"noise": NOISE, "sigma": 1.2, "delta": 1e-3, "params": PARAMS}
CERTIFIED = LINEAR | {"noise": NOISE, "sigma": 1.2, "delta": 1e-3}
SCORED = {"scores": SCORES}
NORM = {"norm": 1.3, "l2": 0.1}
PAIR = jnp.array([0.1, 0.3])
PERTURBED = {"l2": 0.1, "sigma": 1.2}
MODULES = {
    "distances": distances,
    "metrics": metrics,
    "heads": heads,
    "output_perturbation": output_perturbation,
    "privacy": privacy,
    "releases": releases,
}
HEAD = {"params": jnp.stack([PARAMS, -PARAMS, NOISE]), "l2": 0.1, "x": DATA.x}


def of_numbers(name, **at):
    """A row of the public function of that name, which takes the numbers and nothing else."""
    module, function = name.rsplit(".", 1)
    return Row(name, lambda data, **at: getattr(MODULES[module], function)(**at), at)


TABLE = [
    Row("fit", fitted, HYPER | {"noise": NOISE, "x": DATA.x}),
    Row(
        "fit",
        network_fitted,
        {"l2": 0.1, "params": WEIGHTS},
        traced_only=True,
        slow=True,
    ),
    Row("make_data", lambda data, x: fmu_jax.make_data(x, data.y, data.group, groups=2), {"x": DATA.x}),
    Row("predict_labels", lambda data, params: fmu_jax.predict_labels(linear(0.1), params, data.x), {"params": PARAMS}),
    Row("sample_noise", lambda data, sigma: fmu_jax.sample_noise(data.x[0], key=KEY, sigma=sigma), {"sigma": 1.2}),
    *[
        Row(
            f"remove.{name}",
            lambda data, options=options, **at: removed(data, **options, **at).params,
            LINEAR,
            slow=slow,
        )
        for name, slow, options in (
            ("fair_newton", False, {}),
            ("projective", True, {"method": "projective"}),
            ("influence", True, {"method": "influence"}),
            ("newton", True, {"method": "newton"}),
            ("descent", True, {"method": "descent", "steps": 3}),
            ("reweighed", True, {"reweigh": True, "steps": 2}),
            ("cg", True, {"solver": "cg", "damping": 0.2}),
        )
    ],
    Row(
        "remove.descent",
        lambda data, **at: removed(data, method="descent", steps=3, key=KEY, **at),
        {"step_size": 0.01, "publish_sigma": 0.1},
        slow=True,
    ),
    Row("remove.retrain", lambda data, **at: removed(data, method="retrain", **at), LINEAR, traced_only=True),
    Row(
        "remove.sharded",
        lambda data, l2, params, x: removed(data, l2, 0.0, jnp.stack([params] * 2), x=x, method="sharded", shard=SHARD),
        ONE | {"x": DATA.x},
        traced_only=True,
    ),
    Row(
        "remove.network",
        lambda data, **at: network_removed(data, **at).params,
        {"params": WEIGHTS, "damping": 5.0, "l2": 0.1, "x": DATA.x},
        slow=True,
    ),
    Row(
        "remove.network",
        lambda data, params, l2: network_removed(data, params, None, l2, None, solver="cg", gauss_newton=True),
        {"params": WEIGHTS, "l2": 0.1},
        traced_only=True,
        slow=True,
    ),
    Row("certify", certified, CERTIFIED, slow=True),
    Row("certify", certified, CERTIFIED | {"params": jnp.zeros(D)}, slow=True),
    Row("certificates.paper_worst_case", lambda data, **at: certificates.paper_worst_case(**at, n=9, n_b=4), NORM),
    Row("certify_descent", descended, ONE | {"publish_sigma": 0.5, "delta": 1e-3, "step_size": 0.05}, slow=True),
    Row(
        "fairness_interval",
        lambda data, params, l2: fmu_jax.fairness_interval(linear(l2), removed(data, l2, params=params), data),
        ONE,
        traced_only=True,
    ),
    Row("distances.retrained_region", region, ONE, slow=True),
    of_numbers("distances.local_radius", nu=0.2, largest=1.5),
    of_numbers("distances.local_radius", nu=2.0, largest=1.5),
    Row(
        "distances.convex_distance",
        lambda data, residual, l2: distances.convex_distance(residual, 24, l2),
        {"residual": jnp.array(0.3), "l2": 0.1},
    ),
    of_numbers("distances.within", radius=jnp.array(0.3), wide=1.2),
    of_numbers("distances.shape_norms", dual=jnp.eye(3) + 0.2 * SHAPE, shape=SHAPE)._replace(slow=True),
    Row(
        "distances.shaped_distance",
        lambda data, **at: distances.shaped_distance(region(data, **at), SHAPE),
        ONE,
        traced_only=True,
    ),
    Row(
        "distances.local_distance",
        lambda data, **at: distances.local_distance(region(data, **at)),
        ONE,
        traced_only=True,
    ),
    Row(
        "distances.prediction_margins",
        lambda data, x, **at: distances.prediction_margins(region(data, **at), x),
        ONE | {"x": DATA.x},
        traced_only=True,
    ),
    Row(
        "intervals.interval_in_region",
        lambda data, params, l2: intervals.interval_in_region(linear(l2), params, region(data, params, l2), data),
        ONE,
        traced_only=True,
    ),
    Row(
        "intervals.rate_intervals",
        lambda data, scores: intervals.rate_intervals(scores > 0, abs(scores) > 1, data),
        SCORED,
    ),
    Row("metrics.group_metrics", lambda data, scores: metrics.group_metrics(scores > 0, data), SCORED),
    of_numbers("metrics.worst_gap", rate=jnp.array([0.2, 0.7, 0.4])),
    of_numbers("heads.as_rows", features=DATA.x, radius=1.1),
    Row(
        "heads.layer_features",
        lambda data, params, x: heads.layer_features(MODEL, params, x, layer="layers_0"),
        {"params": WEIGHTS, "x": DATA.x},
    ),
    Row("heads.one_vs_rest", one_vs_rest, {"x": DATA.x}),
    Row(
        "heads.fit_head",
        lambda data, l2, x, noise: heads.fit_head(linear(l2), one_vs_rest(data, x), noise=noise),
        {"l2": 0.1, "x": DATA.x, "noise": HEAD["params"]},
        traced_only=True,
        slow=True,
    ),
    Row("heads.remove_head", lambda data, **at: headed(data, **at)[-1], HEAD, traced_only=True),
    Row("heads.certify_head", certified_head, HEAD | {"sigma": 1.2, "delta": 1e-3}, traced_only=True, slow=True),
    Row("heads.combine", lambda data, **at: heads.combine(each(**at)), {"residual_norm": PAIR, "sigma": 1.2}),
    Row(
        "heads.with_features",
        lambda data, **at: heads.with_features(heads.combine(each(PAIR, 1.2)), **at, rows=3),
        {"epsilon": 0.2, "delta": 1e-3},
    ),
    Row("heads.predict_head", lambda data, params: heads.predict_head(params, data.x), {"params": HEAD["params"]}),
    of_numbers("output_perturbation.publish_sigma_from", distance=0.3, epsilon=0.8, delta=1e-3),
    of_numbers("output_perturbation.neel_epsilon", distance=0.3, publish_sigma=0.8, delta=1e-3),
    of_numbers("output_perturbation.neel_sigma", distance=0.3, epsilon=0.8, delta=1e-3),
    of_numbers("privacy.epsilon_from", **SPENT),
    of_numbers("privacy.certified_epsilon", **SPENT),
    of_numbers("privacy.certified_epsilon", **SPENT | {"residual": 30.0}),
    of_numbers("privacy.residual_from", epsilon=0.5, sigma=1.2, delta=1e-3),
    of_numbers("privacy.gaussian_delta", residual=0.3, sigma=1.2, epsilon=0.4),
    of_numbers("privacy.gaussian_epsilon", **SPENT),
    of_numbers("privacy.gaussian_epsilon", **SPENT | {"residual": 0.0, "delta": 0.01}),
    of_numbers("privacy.gaussian_mu", epsilon=0.7, delta=1e-3),
    Row(
        "audit.by_membership",
        lambda data, margins: audit.by_membership(margins, jnp.arange(24).reshape(2, 2, 6) % 5 < 2),
        {"margins": MARGINS.reshape(2, 2, 6)},
    ),
    Row(
        "audit.draw_models",
        lambda data, l2, sigma: audit.draw_models(
            linear(l2), data, FORGET, key=KEY, sigma=sigma, models=2, batch_size=2
        ),
        PERTURBED,
        traced_only=True,
        slow=True,
    ),
    Row(
        "audit.empirical_epsilon",
        lambda data, models: audit.empirical_epsilon(*models, delta=1e-3, key=KEY),
        {"models": np.asarray(drawn(2, 40, 2)) + np.arange(2.0)[:, None, None] * 3},
        traced_only=True,
        slow=True,
    ),
    Row(
        "audit.empirical_mu",
        lambda data, confidence: audit.empirical_mu(DRAWN, DRAWN[::-1] + 0.1, confidence=confidence, key=KEY),
        {"confidence": 0.95},
        traced_only=True,
        slow=True,
    ),
    Row(
        "audit.relative_test",
        lambda data, shift: audit.relative_test(DRAWN + shift, DRAWN[::-1] + 0.1, 0.9 * DRAWN + 0.5),
        {"shift": 0.2},
        slow=True,
    ),
    Row("audit.klom", lambda data, margins: audit.klom(margins, margins[::2] + 0.1, bins=3), {"margins": MARGINS}),
    Row(
        "audit.largest_bound",
        lambda data, **at: audit.largest_bound(100, **at),
        {"delta": 1e-3, "confidence": 0.9},
        slow=True,
    ),
    Row(
        "audit.lira",
        lambda data, margins: audit.lira(margins, margins[::-1] - 0.5, false_positive_rate=0.2),
        {"margins": MARGINS},
    ),
    Row(
        "audit.membership",
        lambda data, margins: audit.membership(margins, jnp.arange(24).reshape(8, 3) % 2 == 0),
        {"margins": MARGINS},
    ),
    Row("audit.plant", lambda data, x: audit.plant(moved(data, x), 4, key=KEY), {"x": DATA.x}),
    Row(
        "audit.shadow_models",
        lambda data, l2, sigma: audit.shadow_models(
            linear(l2), data, audit.twins(data, 2, key=KEY), key=KEY, sigma=sigma, pairs=1, shards=2, batch_size=1
        ),
        PERTURBED,
        traced_only=True,
        slow=True,
    ),
    Row(
        "audit.shadow_networks",
        lambda data, l2: audit.shadow_networks(
            linear(l2, predict=network),
            data,
            audit.twins(data, 2, key=KEY),
            data,
            train=lambda rows, key: WEIGHTS,
            methods={"fair_newton": {"damping": 5.0}},
            key=KEY,
            pairs=1,
        ),
        {"l2": 0.1},
        traced_only=True,
        slow=True,
    ),
    Row("audit.twins", lambda data, x: audit.twins(moved(data, x), 4, key=KEY), {"x": DATA.x}),
    Row("audit.roc.auc", lambda data, scores: roc.auc(scores, data.y == 1), SCORED),
    Row(
        "audit.roc.true_positive_rate",
        lambda data, scores: roc.true_positive_rate(scores, data.y == 1, false_positive_rate=0.3),
        SCORED,
    ),
    Row(
        "audit.binomial.clopper_pearson",
        lambda data, confidence: binomial.clopper_pearson(jnp.array([0, 3, 9]), 9, confidence=confidence),
        {"confidence": 0.9},
    ),
    Row(
        "removal.fit_shards",
        lambda data, l2: removals.fit_shards(linear(l2), data, SHARD),
        {"l2": 0.1},
        traced_only=True,
    ),
    Row(
        "removal.make_shards",
        lambda data, seed: removals.make_shards(N, 2, key=jax.random.key(put(seed).astype(int))),
        {"seed": 1.0},
    ),
    Row(
        "removal.predict_shards",
        lambda data, params: removals.predict_shards(params, data.x),
        {"params": HEAD["params"]},
    ),
    *[
        Row(
            f"remove.{name}",
            lambda data, name=name, **at: network_descended(data, name, **at),
            {"params": WEIGHTS, "l2": 0.1, "x": DATA.x, "learning_rate": 0.01},
            traced_only=True,
            slow=name != "scrub",
        )
        for name in ("finetune", "gradient_ascent", "scrub")
    ],
    Row(
        "removal.recollect",
        lambda data, init, l2, x, step_size: removals.recollect(
            linear(l2, fairness=0.0), init, moved(data, x), steps=2, step_size=step_size, batch=4, key=KEY
        ),
        {"init": PARAMS, "l2": 0.1, "x": DATA.x, "step_size": 0.2},
        slow=True,
    ),
    # Rounded to a grid, as releases are.
    Row(
        "noisy_finetuning.finetune",
        lambda data, params, l2, x: (
            noisy_finetuning.finetune(
                linear(l2, predict=network), params, moved(data, x), FORGET, schedule=SCHEDULE, key=KEY
            ).params
        ),
        {"params": WEIGHTS, "l2": 0.1, "x": DATA.x},
        traced_only=True,
    ),
    Row(
        "noisy_finetuning.finetune_blocks",
        lambda data, params, l2, x: (
            noisy_finetuning.finetune_blocks(
                linear(l2, predict=network),
                params,
                moved(data, x),
                FORGET,
                blocks=["layers_0", "layers_2"],
                start_clip=0.5,
                noise=0.8,
                repair_steps=2,
                key=KEY,
            ).params
        ),
        {"params": WEIGHTS, "l2": 0.1, "x": DATA.x},
        traced_only=True,
        slow=True,
    ),
    Row("spectrum.extreme_eigenvalues", eigenvalues, {"matrix": MATRIX}),
    Row(
        "spectrum.damping_for",
        lambda data, matrix, condition: spectrum.damping_for(eigenvalues(data, matrix), condition=condition),
        {"matrix": MATRIX, "condition": 2.0},
    ),
    Row(
        "conjugate_gradients",
        lambda data, matrix, b, tolerance: (
            conjugate_gradients(lambda v: {"b": (matrix + matrix.T) @ v["b"]}, {"b": b}, tolerance=tolerance).solution
        ),
        {"matrix": MATRIX, "b": jnp.arange(1.0, 6.0), "tolerance": 1e-12},
    ),
    Row(
        "sharding.pad_rows",
        lambda data, x: sharding.pad_rows(moved(data, x), 30),
        {"x": DATA.x},
    ),
    Row("stream.start", streamed, STREAM, traced_only=True),
    Row("stream.delete", lambda data, **at: streamed(data, **at, forget=FORGET), STREAM, slow=True),
    Row(
        "stream.needs_refresh", lambda data, **at: stream.needs_refresh(streamed(data, **at)), STREAM, traced_only=True
    ),
    Row("stream.refresh", lambda data, **at: stream.refresh(streamed(data, **at), data), STREAM, traced_only=True),
    Row(
        "stream.serve",
        lambda data, **at: stream.serve(streamed(data, **at), data, [3, 4]),
        STREAM,
        traced_only=True,
        slow=True,
    ),
    Row(
        "stream.retrained_region",
        lambda data, **at: stream.retrained_region(streamed(data, **at)),
        STREAM,
        traced_only=True,
        slow=True,
    ),
    Row(
        "stream.fairness_interval",
        lambda data, **at: stream.fairness_interval(streamed(data, **at), data),
        STREAM,
        traced_only=True,
        slow=True,
    ),
    Row(
        "stream.distance_to_retrained",
        lambda data, **at: stream.distance_to_retrained(streamed(data, **at), shape=SHAPE),
        STREAM,
        traced_only=True,
        slow=True,
    ),
    Row(
        "stream.exact_residuals",
        lambda data, l2, fairness, x, params, noise: stream.exact_residuals(
            linear(l2, fairness), moved(data, x), jnp.array([3, 4]), jnp.stack([params, -params]), [0, 1], noise=noise
        ),
        LINEAR | {"noise": NOISE},
    ),
    Row(
        "stream.serve_releases",
        lambda data, scale, admitted, **at: stream.serve_releases(
            streamed(data, **at), data, [3, 4], key=KEY, scale=scale, admitted=admitted
        ),
        STREAM | {"scale": 0.1, "admitted": 1.0},
        traced_only=True,
        slow=True,
    ),
    of_numbers("releases.trade_off", mu=1.0, alpha=0.05),
    of_numbers("releases.compose", mus=PAIR),
    of_numbers("releases.budget", mu=0.5, spent=PAIR),
    of_numbers("releases.scale_for", admitted=1e-3, mu=0.3),
    Row(  # Rounded to a grid: what is released has no derivative but that of a step.
        "releases.release",
        lambda data, params, distance, scale: releases.release(params, distance, key=KEY, scale=scale, shape=SHAPE),
        {"params": PARAMS, "distance": 0.1, "scale": 0.5},
        traced_only=True,
    ),
    Row(
        "releases.distance_to_retrained",
        lambda data, params, l2: releases.distance_to_retrained(linear(l2), removed(data, l2, params=params)),
        ONE,
        traced_only=True,
    ),
    Row("thresholds.fit_thresholds", lambda data, scores: thresholds.fit_thresholds(scores, data), SCORED),
    Row(
        "thresholds.predict_with_thresholds",
        lambda data, scores: thresholds.predict_with_thresholds(scores, data.group, scores[:2]),
        SCORED,
    ),
]
#: They look at values to answer, or read files; see ``test_what_cannot_be_done_is_said``. Whole modules: ``datasets``
#: reads files, ``deletion`` is a program that keeps a store of them, ``forget_sets`` draws rows by their values.
HOST = {"audit.one_run", "stream.take", "datasets", "deletion", "forget_sets"}
#: A search that stops at a tolerance: jitted and mapped (``tests/fmu/test_calibration.py``), no derivative in reverse.
HOST |= {"calibration.calibrate_noise", "calibration.calibrate_draws"}
#: They make columns of a table of results, in plain numbers; so do all of ``comparison`` and ``publication``.
HOST |= {"comparison", "publication", "stream.epsilon_curve", "stream.spread"}
HOST |= {"stream.release_costs", "stream.perturbation_costs", "audit.network_table"}
HOST |= {"stream.retraining_costs", "stream.beside_retrained", "stream.series_costs", "metrics.measure_groupings"}
HOST |= {f"audit.{name}" for name in ("attack_columns", "attack_table", "epsilon_table")}
HOST |= {f"metrics.{name}" for name in ("columns", "metrics_of_models", "metrics_of_classes", "score_gaps")}
HOST |= {f"metrics.{name}" for name in ("measure", "measure_gaps", "means", "gap_of")}
#: They compose others that have rows: deal and fit, plan and finetune; or name the methods of an audit.
HOST |= {"removal.fit_ensemble", "noisy_finetuning.finetune_by", "noisy_finetuning.schedule_of"}
HOST |= {"noisy_finetuning.finetune_by_all"}
HOST |= {"audit.noisy_methods", "audit.uncertified_methods"}
#: Accountants of a schedule that is fixed beforehand: float64 on the host.
HOST |= {f"noisy_finetuning.{name}" for name in ("contraction_delta", "guarantee", "iteration_mu", "noise_for")}
HOST |= {f"noisy_finetuning.{name}" for name in ("contraction_epsilon", "guarantee_of_blocks", "noise_for_blocks")}
#: They look at a rate of contraction to answer.
HOST |= {"noisy_finetuning.langevin", "noisy_finetuning.rewind"}
#: Canaries are scored by a program that is compiled as a whole; distances of rows come as NumPy arrays.
HOST |= {"audit.mislabelled", "audit.score_canaries", "releases.row_distances"}
#: Of them it is not tested yet what they do under transformations.
HOST |= {"releases.noise_shape", "releases.release_many", "stream.serve_batches"}
HOST |= {f"stream.{name}" for name in ("serve_for_releases", "serve_perturbed", "published_after", "refreshes_of")}
#: They move arrays between devices, processes and the host, which is no computation.
HOST |= {f"sharding.{name}" for name in ("place_rows", "place_process_rows", "first_row", "gather", "on_host", "each")}
HOST |= {"sharding.slices"}


def public_names():
    for name in fmu_jax.__all__:
        found = getattr(fmu_jax, name)
        if inspect.isfunction(found) or hasattr(found, "lower"):
            yield name
        if isinstance(found, types.ModuleType) and name not in HOST:
            own = [n for n, v in vars(found).items() if getattr(v, "__module__", "") == found.__name__]
            for inner in getattr(found, "__all__", own):
                function = getattr(found, inner)
                if callable(function) and not inspect.isclass(function) and not inner.startswith(("_", "check_")):
                    yield f"{name}.{inner}"


def test_every_public_function_has_a_row():
    known = {row.name for row in TABLE} | HOST
    known |= {f"{module}.{name}" for module in ("certificates", "intervals", "output_perturbation", "removal")
              for name in ("certify", "fairness_interval", "certify_descent", "remove")}  # fmt: skip
    known |= {"remove"} & {name.split(".")[0] for name in known}
    assert set(public_names()) - known == set()


def on_line(row):
    """The row as a function of ``t (k,)``: how far each number is moved along a direction, relative to its size."""
    rng = np.random.default_rng(3)

    def direction(leaf):
        return abs(leaf) if np.ndim(leaf) == 0 else rng.normal(size=np.shape(leaf))

    along = jax.tree.map(direction, row.at)

    def point(t):
        return {
            name: jax.tree.map(lambda leaf, u, shift=shift: leaf + shift * u, row.at[name], along[name])
            for name, shift in zip(row.at, t, strict=True)
        }

    return lambda data, t: floats_of(row.call(data, **point(t)))


def is_float(leaf):
    return jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def floats_of(tree):
    """Every floating-point number in it, as a vector, and a zero."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if is_float(leaf)]
    return jnp.concatenate([jnp.zeros(1), *(jnp.ravel(leaf) for leaf in leaves)])


def close(a, b, *, rtol=1e-7, atol=1e-9):
    np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def rows(mark, *, traced_only):
    marks = {True: mark, False: []}
    return [pytest.param(row, id=row.name, marks=marks[row.slow]) for row in TABLE if row.traced_only == traced_only]


@pytest.mark.parametrize("row", rows(pytest.mark.slow, traced_only=False))
def test_compositions_agree_with_eager_values_and_differences(row):
    values, k = on_line(row), len(row.at)
    step = 1e-5
    points = np.concatenate([np.zeros((1, k)), step * np.eye(k), -step * np.eye(k)])

    @jax.jit
    def both(data, points):
        """Data closed over, vmap, forward mode; data as an argument, scan, reverse mode."""
        closed_over = jax.vmap(jax.jacfwd(lambda t: 2 * (values(DATA, t),), has_aux=True))(points)
        reverse = jax.jacrev(lambda t: 2 * (values(data, t),), has_aux=True)
        return closed_over, jax.lax.scan(lambda c, t: (c, reverse(t)), 0, points[:1])[1]

    eager = row.call(DATA, **row.at)
    eager = np.concatenate([np.zeros(1), *(np.ravel(leaf) for leaf in jax.tree.leaves(eager) if is_float(leaf))])
    (forward, mapped), ((reverse,), (scanned,)) = jax.tree.map(np.asarray, both(DATA, points))
    finite = np.isfinite(eager)
    close(mapped[0], eager)
    close(scanned, eager)
    with np.errstate(invalid="ignore"):  # What is infinite has no difference.
        forward, differences = forward[0], (mapped[1 : k + 1] - mapped[k + 1 :]).T / (2 * step)
    assert np.isfinite(forward).all()
    assert np.isfinite(reverse).all()
    close(forward[finite], differences[finite], rtol=1e-5, atol=1e-6 * (1 + np.abs(forward[finite]).max(initial=0)))
    close(reverse, forward, rtol=1e-7, atol=1e-8 * (1 + np.abs(forward).max()))


def traced(row):
    """The row as a function of all its numbers, those numbers, and two of each."""
    at = jax.tree.map(jnp.asarray, row.at)
    return lambda at: floats_of(row.call(DATA, **at)), at, jax.tree.map(lambda leaf: np.stack([leaf, leaf]), at)


@pytest.mark.weekly
@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in TABLE])
def test_each_number_can_be_mapped_alone(row):
    """The others are no tracers, which a check may look at, and have no axis."""
    floats, at, many = traced(row)
    for name in at:
        jax.eval_shape(jax.vmap(lambda number, name=name: floats(at | {name: number})), many[name])


@pytest.mark.parametrize(
    "row",  # The weekly ones are mapped and differentiated in all numbers together by the test above.
    [
        *(pytest.param(row, id=row.name, marks=pytest.mark.weekly) for row in TABLE if not row.traced_only),
        *rows(pytest.mark.slow, traced_only=True),
    ],
)
def test_all_numbers_can_be_mapped_and_differentiated(row):
    floats, _, many = traced(row)
    jax.eval_shape(jax.vmap(jax.grad(lambda at: floats(at).sum())), many)
    if row.traced_only:
        jax.eval_shape(lambda many: jax.lax.scan(lambda c, at: (c, jax.jvp(floats, (at,), (at,))), 0, many), many)


def minimiser(x, y, group, weight, noise, *, l2, fairness):
    """The fair objective for weights that need not be 0 or 1, minimised from its formula; two groups."""

    def total(theta):
        scores, n = x @ theta, weight.sum()
        member = [[weight * ((group == g) & (y == label)).astype(float) for label in (0, 1)] for g in (0, 1)]
        size = [sum(cell.sum() for cell in cells) for cells in member]
        gap = sum(
            member[0][k] @ scores * member[1][k].sum() - member[1][k] @ scores * member[0][k].sum() for k in (0, 1)
        )
        losses = weight @ (jnp.logaddexp(0, scores) - y * scores)
        return losses + n * (l2 / 2 * theta @ theta + fairness * (gap / (size[0] * size[1])) ** 2) + noise @ theta

    def step(_, theta):
        return theta - jnp.linalg.solve(jax.hessian(total)(theta), jax.grad(total)(theta))

    return jax.lax.fori_loop(0, 12, step, jnp.zeros(x.shape[1]))


def test_fit_is_differentiable_in_weights_as_the_formula_is():
    """Counts of rows are sums of weights, so a weight moves ridge and penalty; a removed row's, too."""
    weight = DATA.weight.at[3].set(0)
    moved = jnp.cos(jnp.arange(1.0 * N))

    def fitted(weight):
        return fmu_jax.fit(linear(0.1, 0.7), DATA._replace(weight=weight), noise=NOISE).params

    @jax.jit
    def by_formula(weight):
        return minimiser(DATA.x, DATA.y.astype(float), DATA.group, weight, NOISE, l2=0.1, fairness=0.7)

    value, tangent = jax.jit(lambda weight: jax.jvp(fitted, (weight,), (moved,)))(weight)
    close(value, by_formula(weight), rtol=1e-9)
    close(tangent, (by_formula(weight + 1e-5 * moved) - by_formula(weight - 1e-5 * moved)) / 2e-5, rtol=1e-6)


def test_conjugate_gradients_have_second_derivatives():
    def energy(s):
        return b @ conjugate_gradients(lambda v: MATRIX @ v + s * v, b * s, tolerance=1e-13).solution

    b = np.arange(1.0, 6.0)
    exact = [s * b @ np.linalg.solve(MATRIX + s * np.eye(5), b) for s in (2.0, 2.01, 1.99)]
    reverse, forward = jax.jit(lambda s: (jax.grad(jax.grad(energy))(s), jax.jacfwd(jax.jacfwd(energy))(s)))(2.0)
    close(reverse, (exact[1] - 2 * exact[0] + exact[2]) / 1e-4, rtol=1e-3)
    close(reverse, forward)


def test_what_did_not_converge_has_no_derivative():
    """NaN in both modes, as nothing can be raised while tracing."""

    def short(l2):
        return fmu_jax.fit(linear(l2), DATA, max_steps=1, throw=False).params

    def few(s):
        return conjugate_gradients(lambda v: MATRIX @ v + s * v, jnp.ones(5), max_steps=2).solution

    for function in (short, few):
        value, forward, reverse = jax.jit(lambda t, f=function: (f(t), jax.jacfwd(f)(t), jax.jacrev(f)(t)))(0.1)
        assert np.isfinite(value).all()
        assert np.isnan(forward).all()
        assert np.isnan(reverse).all()


def test_closed_over_data_is_still_checked_under_jit():
    broken, gone = DATA._replace(x=DATA.x.at[0, 0].set(jnp.nan)), DATA._replace(weight=DATA.weight.at[1].set(0))
    for call in (
        lambda l2: fmu_jax.fit(linear(l2), broken),
        lambda l2: fmu_jax.remove(linear(l2), PARAMS, broken, [1]),
        lambda l2: fmu_jax.remove(linear(l2), PARAMS, gone, [1]),
    ):
        with pytest.raises(ValueError, match=r"NaN or infinite|removed before"):
            jax.eval_shape(call, 0.1)


def half(dtype):
    return jnp.ones(5, dtype)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (TypeError, "must see its values", lambda: jax.eval_shape(lambda d: stream.take(d, [1]), DATA)),
        (
            TypeError,
            "no derivative in their `weight`",
            lambda: jax.eval_shape(
                jax.grad(lambda w: streamed(DATA._replace(weight=w), **STREAM).params.sum()), DATA.weight
            ),
        ),
        (
            TypeError,
            "first derivatives only",
            lambda: jax.eval_shape(jax.hessian(lambda m: eigenvalues(DATA, m).largest), MATRIX),
        ),
        (
            TypeError,
            "`steps` is part of the program",
            lambda: jax.eval_shape(lambda steps: removed(DATA, method="descent", steps=steps), 3),
        ),
        *[
            (ValueError, "float32", lambda dtype=dtype: conjugate_gradients(lambda v: v, half(dtype)))
            for dtype in ("bfloat16", "float16", "int32")
        ],
        (ValueError, "no array", lambda: conjugate_gradients(lambda v: v, {})),
        (ValueError, "float32", lambda: spectrum.extreme_eigenvalues(lambda v: v, half("bfloat16"))),
    ],
)
def test_what_cannot_be_done_is_said(error, message, call):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rows_in_half_precision_are_trained_on_in_float32(dtype):
    rows = fmu_jax.make_data(jnp.asarray(DATA.x, dtype), DATA.y, DATA.group)
    fit = jax.jit(lambda data: fmu_jax.fit(linear(0.1), data))(rows)
    assert fit.params.dtype == jnp.float32
    assert fit.converged
    with pytest.raises(ValueError, match="must have the dtype of the features"):
        fmu_jax.remove(linear(0.1), fit.params.astype(dtype), rows, [1])
