"""Kernels of ``fmu_jax`` at the sizes of a large table: 10^8 rows of 64 columns, a head, a small network, an audit."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import fmu_jax
from benchmarks.kernels import Kernel, Place
from fmu_jax import audit, distances, heads, networks, noisy_finetuning, releases, spectrum, stream
from fmu_jax.data import rows_at
from fmu_jax.moments import moments

ROWS, COLUMNS = 960 * 128 * 814, 64  # What `place_rows` makes of 10^8.
SIZE = "10^8 x 64"
OBJECTIVE = fmu_jax.Objective(l2=1e-4, fairness=1.0)


def _table(place: Place, n: int = ROWS, d: int = COLUMNS, groups: int = 2) -> fmu_jax.Data:
    codes = place.rows((n,), jnp.int32)
    return fmu_jax.Data(place.rows((n, d)), codes, codes, place.rows((n,)), groups)


def _removal(place: Place, data: fmu_jax.Data) -> fmu_jax.Removal:
    params = place.whole((data.x.shape[1],))
    scalar = place.whole(())
    flag, count = (place.whole(jax.ShapeDtypeStruct((), kind)) for kind in (bool, jnp.int32))
    return fmu_jax.Removal(params, data, place.rows(data.weight.shape, bool), params, flag, scalar, count, 0.0, 0.0)


def _of_table(function: Callable[..., Any], n: int = ROWS, d: int = COLUMNS, groups: int = 2) -> Callable[..., Any]:
    """``function(params, data, forget, noise)``."""

    def make(place: Place) -> Any:
        vector = place.whole((d,))
        return function, (vector, _table(place, n, d, groups), place.rows((n,), bool), vector)

    return make


def _of_removal(function: Callable[..., Any], n: int = ROWS, d: int = COLUMNS) -> Callable[..., Any]:
    """``function(params, removal, noise)``."""

    def make(place: Place) -> Any:
        vector = place.whole((d,))
        return function, (vector, _removal(place, _table(place, n, d)), vector)

    return make


def _fit(solver: str, **options: Any) -> Callable[..., Any]:
    def fit(params, data, forget, noise):
        del forget
        return fmu_jax.fit(OBJECTIVE, data, noise=noise, init=params, solver=solver, throw=False, **options)

    return fit


def _remove(method: str, objective: Any = OBJECTIVE, **options: Any) -> Callable[..., Any]:
    def remove(params, data, forget, noise):
        perturbation = {} if method in ("projective", "newton") else {"noise": noise}
        return fmu_jax.remove(
            objective, params, data, forget, method=method, throw=False, allow_unfair=True, **perturbation, **options
        )

    return remove


def _certify(params, removal, noise):
    return fmu_jax.certify(OBJECTIVE, params, removal, sigma=1.0, delta=1e-5, noise=noise)


def _region(params, removal, noise):
    del params
    return distances.retrained_region(OBJECTIVE, removal, noise=noise)


def _interval(params, removal, noise):
    del params
    return fmu_jax.fairness_interval(OBJECTIVE, removal, removal.data, noise=noise)


def _certify_descent(params, removal, noise):
    return fmu_jax.certify_descent(OBJECTIVE, params, removal, publish_sigma=1.0, delta=1e-5, noise=noise)


def _publish(params, removal, noise):
    distance = releases.distance_to_retrained(OBJECTIVE, removal, noise=noise)
    return releases.release(params, distance, key=jax.random.key(0), scale=1.0)


def _metrics(params, data, forget, noise):
    del forget, noise
    return fmu_jax.metrics.group_metrics(fmu_jax.predict_labels(OBJECTIVE, params, data.x), data)


def _thresholds(params, data, forget, noise):
    del forget, noise
    return fmu_jax.thresholds.fit_thresholds(data.x @ params, data)


def _calibrate(params, data, forget, noise):
    return fmu_jax.calibration.calibrate_noise(
        OBJECTIVE, data, forget, noise, epsilon=1.0, delta=1e-5, init=params, max_steps=5
    )


def _state(params, data, noise):
    fitted = fmu_jax.FitResult(params, jnp.bool_(True), jnp.float32(0), jnp.int32(0))
    return stream.start(OBJECTIVE, fitted, data, noise=noise, sigma=1.0, delta=1e-5, budget=1.0)


def _start(params, data, forget, noise):
    del forget
    return _state(params, data, noise)


def _of_stream(function: Callable[..., Any], n: int = ROWS) -> Callable[..., Any]:
    """``function(state, data, rows)`` of 1,000 requests."""

    def make(place: Place) -> Any:
        vector, data = place.whole((COLUMNS,)), _table(place, n)
        state = place.whole(jax.eval_shape(_state, vector, data, vector))
        return function, (state, data, place.whole(jax.ShapeDtypeStruct((1000,), jnp.int32)))

    return make


def _delete(state, data, rows):
    return stream.delete(state, rows_at(data, rows))


def _refresh(state, data, rows):
    del rows
    return stream.refresh(state, data)


def _serve(state, data, rows):
    after, left, served = stream.serve(state, data, rows)
    return after, left.weight, served  # The other arrays are those that were passed: no call gives them out again.


def _serve_releases(state, data, rows):
    after, left, *released = stream.serve_releases(state, data, rows, key=jax.random.key(0), scale=1.0, admitted=1.0)
    return after, left.weight, released


def _head(place: Place) -> tuple[Any, ...]:
    n, d, classes = 960 * 52, 513, 10
    data = _table(place, n, d)
    on_second = None if place.mesh is None else jax.sharding.NamedSharding(place.mesh, jax.P(None, "data"))
    data = data._replace(y=jax.ShapeDtypeStruct((classes, n), jnp.int32, sharding=on_second))
    return place.whole((classes, d)), data, place.rows((n,), bool), place.whole((classes, d))


def _fit_head(params, data, forget, noise):
    del forget, params
    return heads.fit_head(OBJECTIVE, data, noise=noise, throw=False)


def _remove_head(params, data, forget, noise):
    removal = heads.remove_head(OBJECTIVE, params, data, forget, noise=noise, throw=False)
    return heads.certify_head(OBJECTIVE, params, removal, sigma=1.0, delta=1e-5, noise=noise)


def network(place: Place) -> tuple[Any, ...]:
    """A LeNet, and the arguments of a removal from it: parameters, 60,480 images, and which to forget."""
    n, model = 960 * 63, networks.LeNet(width=128)
    data = _table(place, n, 197)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 197))))
    return model, place.whole(params), data, place.rows((n,), bool)


def _of_network(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function(objective, params, data, forget)``."""

    def make(place: Place) -> Any:
        model, *arguments = network(place)
        objective = fmu_jax.Objective(l2=1e-3, fairness=1.0, predict=model.apply)
        return lambda *given: function(objective, *given), tuple(arguments)

    return make


def _finetune(objective, params, data, forget):
    plan = noisy_finetuning.Schedule(start_clip=1.0, noise=1.0, steps=100, step_size=0.1, gradient_clip=1.0, batch=1024)
    return noisy_finetuning.finetune(objective, params, data, forget, schedule=plan, key=jax.random.key(0))


def _train_adam(objective, params, data, forget):
    del params, forget
    return networks.train_adam(
        objective, networks.LeNet(width=128), data, jax.random.key(0), steps=100, learning_rate=1e-2
    )


def _eigenvalues(objective, params, data, forget):
    del forget
    return spectrum.extreme_eigenvalues(
        lambda v: fmu_jax.objective.hessian_vector_product(objective, params, data, v), params
    )


def _of_samples(function: Callable[..., Any], *shapes: tuple[int, ...]) -> Callable[..., Any]:
    return lambda place: (function, tuple(place.rows(shape) for shape in shapes))


def _draw_models(params, data, forget, noise):
    del params, noise
    return audit.draw_models(OBJECTIVE, data, forget, key=jax.random.key(0), sigma=1.0, models=1024, batch_size=64)


#: Of any number of rows: ``make`` of a kernel.
BY_ROWS: dict[str, Callable[[int], Callable[[Place], Any]]] = {
    "fit": lambda n: _of_table(_fit("dense"), n),
    "remove fair_newton": lambda n: _of_table(_remove("fair_newton"), n),
    "retrained_region": lambda n: _of_removal(_region, n),
    "certify": lambda n: _of_removal(_certify, n),
}

_MODELS = (1024, 16)
KERNELS = [
    Kernel("fit", SIZE, _of_table(_fit("dense"))),
    Kernel("remove fair_newton", SIZE, _of_table(_remove("fair_newton"))),
    Kernel("remove influence", SIZE, _of_table(_remove("influence"))),
    Kernel("remove newton", SIZE, _of_table(_remove("newton"))),
    Kernel("remove projective", SIZE, _of_table(_remove("projective"))),
    Kernel("remove descent", SIZE, _of_table(_remove("descent", steps=50))),
    Kernel("retrained_region", SIZE, _of_removal(_region)),
    Kernel("certify", SIZE, _of_removal(_certify)),
    Kernel("fairness_interval", SIZE, _of_removal(_interval)),
    Kernel("distance and release", SIZE, _of_removal(_publish)),
    Kernel("certify_descent", SIZE, _of_removal(_certify_descent)),
    Kernel("group_metrics", SIZE, _of_table(_metrics)),
    Kernel("fit_thresholds", SIZE, _of_table(_thresholds)),
    Kernel("calibrate_noise", "960,000 x 64", _of_table(_calibrate, n=960_000)),
    Kernel("stream start", SIZE, _of_table(_start)),
    Kernel("stream delete", f"{SIZE}, 1,000 rows", _of_stream(_delete)),
    Kernel("stream refresh", SIZE, _of_stream(_refresh)),
    Kernel("stream serve", f"{SIZE}, 1,000 requests", _of_stream(_serve)),
    Kernel("stream serve_releases", f"{SIZE}, 1,000 requests", _of_stream(_serve_releases)),
    Kernel("moments", SIZE, _of_table(lambda p, data, f, b: moments(OBJECTIVE, p, data))),
    Kernel(
        "moments, 128 columns", "2.5 x 10^7 x 128",
        _of_table(lambda p, data, f, b: moments(OBJECTIVE, p, data), n=960 * 128 * 200, d=128),
    ),
    Kernel("fit, conjugate gradients", "10^6 x 4,096", _of_table(_fit("cg"), n=960 * 1042, d=4096)),
    Kernel("fit, five groups", SIZE, _of_table(_fit("dense"), groups=5)),
    Kernel("fit_head", "49,920 x 513, 10 classes", lambda place: (_fit_head, _head(place))),
    Kernel("remove and certify head", "49,920 x 513, 10 classes", lambda place: (_remove_head, _head(place))),
    Kernel(
        "remove fair_newton, LeNet", "60,480 images", _of_network(
            lambda objective, *given: fmu_jax.remove(objective, *given, throw=False)
        ),
    ),
    Kernel(
        "remove scrub, LeNet", "60,480 images", _of_network(
            lambda objective, *given: fmu_jax.remove(objective, *given, method="scrub", throw=False)
        ),
    ),
    Kernel("extreme_eigenvalues, LeNet", "60,480 images, 64 products", _of_network(_eigenvalues)),
    Kernel("noisy finetune, LeNet", "60,480 images, 100 steps of 1,024", _of_network(_finetune)),
    Kernel("train_adam, LeNet", "60,480 images, 100 steps", _of_network(_train_adam)),
    Kernel("draw_models", "30,720 x 16, 1,024 models", _of_table(_draw_models, n=960 * 32, d=16)),
    Kernel("empirical_epsilon", "1,024 models x 16", _of_samples(
        lambda p, q: audit.empirical_epsilon(p, q, delta=1e-5, key=jax.random.key(0)), _MODELS, _MODELS
    )),
    Kernel("empirical_mu", "1,024 models x 16", _of_samples(
        lambda p, q: audit.empirical_mu(p, q, key=jax.random.key(0)), _MODELS, _MODELS
    )),
    Kernel("relative_test", "1,024 models x 16", _of_samples(audit.relative_test, _MODELS, _MODELS, _MODELS)),
    Kernel("lira", "1,024 models x 100 rows", _of_samples(audit.lira, (1024, 100), (1024, 100))),
    Kernel("klom", "1,024 models x 100 rows", _of_samples(audit.klom, (1024, 100), (1024, 100))),
]  # fmt: skip
