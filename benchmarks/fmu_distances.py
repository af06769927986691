"""Is any certified distance below the true one? Thousands of adversarial problems in both dtypes.

    python -m benchmarks.fmu_distances                       # 3,120 problems
    python -m benchmarks.fmu_distances --problems 12         # a smoke run

Each problem has its own scales (1e-18 to 1e18), collinear or repeated columns and rows, outliers, saturated scores,
cells of one row, l2 from 1e-8 to 10, fairness up to 1e4, and parameters that stand at the optimum, near it, far from it
or at zero. Certified are the distances in the identity, in the shape that both worlds share and in an arbitrary one: of
a model, of a stream that deleted some rows from an anchor anywhere, and of a head of three classes.

The truth is found by definition, pair by pair, in extended precision (unit roundoff 5e-20) with a bound on its own
error by strong convexity, which includes the rounding of its gradient; what that does not decide is decided in 50
digits (``undecided`` where Newton's method ends in neither). ``ratio`` is certified over true, the median of where
something is certified, and the least of all.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np

from benchmarks import measure
from benchmarks.fmu_truth import FORMS, WORKING, Form, Truth, exact, exact_optimum, norm
from fmu_jax import Data, Objective, distances, releases, stream
from fmu_jax.removal import Removal
from fmu_jax.stream import factor
from fmu_jax.stream import state as state_of
from fmu_jax.stream.state import State
from scripts.harness import cli

COLUMNS = (
    "penalty", "groups", "reweigh", "d", "classes", "dtype", "bound", "problems", "finite", "by_50_digits",
    "below_truth", "undecided", "nan", "least_ratio", "median_ratio",
)  # fmt: skip
KINDS = (
    "plain", "collinear", "duplicate", "rows", "mixed", "outlier", "cells", "zero", "saturated", "extreme", "one_scale",
)  # fmt: skip
N = 24


@dataclass(frozen=True)
class Config(cli.Common):
    """Compare certified with true distances on adversarial problems."""

    out: Path = Path("benchmarks/results")
    problems: cli.Count = 156
    """Problems of each form in each dtype."""
    digits: cli.Count = 12
    """Further problems of each form and dtype that are decided in 50 digits: those with the least ratio."""


def plan(config: Config) -> list[str]:
    """The forms, in either dtype."""
    del config
    return [f"{form} in {dtype}" for form in FORMS for dtype in ("float32", "float64")]


def main(config: Config) -> None:
    """Runs every form in both dtypes and publishes the table."""
    jax.config.update("jax_enable_x64", True)
    table = []
    for form in FORMS:
        for dtype in (np.float32, np.float64):
            table += measure_form(form, dtype, config.seed, config.problems, config.digits)
            print(f"{form} in {dtype.__name__}: done", file=sys.stderr)
    measure.publish(
        "fmu_distances", table, COLUMNS, command=measure.command("benchmarks.fmu_distances"), out=config.out
    )


@np.errstate(all="ignore")  # what is beyond the dtype gives infinity or NaN, and is looked at as such
def measure_form(form: Form, dtype: Any, seed: int, count: int, digits: int) -> list[dict[str, Any]]:
    """A row for each bound of one form in one dtype."""
    rng = np.random.default_rng([seed, FORMS.index(form), dtype == np.float64])
    drawn = [draw(rng, form, dtype) for _ in range(-(-count // form.classes))]
    every = [p for problem in drawn for p in by_class(problem, form.classes)]
    truth = Truth(every, form)
    optimum, wrong = truth.solve()
    params = np.stack([start(rng, at, p) for at, p in zip(optimum, every, strict=True)]).astype(dtype)
    for p in every:
        p["root"] = root(rng, form.d, dtype)
    batch = {key: jnp.asarray(np.stack([p[key] for p in every])) for key in every[0]}
    certified, shape, streamed = jax.tree.map(np.asarray, bounds(form, batch, jnp.asarray(params)))
    rows = []
    for name, bound in certified.items():
        at = streamed if name.startswith("stream") else params
        metric = shape.get(name.removeprefix("stream_"))
        rows.append(compare(truth, at, optimum, wrong, metric, bound, digits, every, form) | {"bound": name})
    if form.classes > 1:
        rows.append(head(form, every, params, optimum, wrong))
    about = form._asdict() | {"dtype": np.dtype(dtype).name}
    return [about | row for row in rows]


def draw(rng: np.random.Generator, form: Form, dtype: Any) -> dict[str, np.ndarray]:
    """One adversarial problem; labels and noise of every class, ``(classes, ...)``."""
    kind, scale, d = rng.choice(KINDS), 10.0 ** rng.choice([-6, -3, 0, 0, 0, 1, 2, 3, 5]), form.d
    x = rng.normal(size=(N, d))
    x[:, -1] = 1
    if kind == "collinear":
        x[:, 1] = x[:, 0] * (1 + 10.0 ** rng.uniform(-12, -3) * rng.normal(size=N))
    if kind == "duplicate":
        x[:, 1] = x[:, 0]
    if kind == "one_scale":
        x[:] = x[:, :1]
    if kind == "rows":
        x[N // 2 :] = x[: N // 2]
    if kind == "mixed":
        x *= 10.0 ** rng.uniform(-5, 4, d)
    if kind == "outlier":
        x[0] *= 1e4
    if kind == "zero":
        x[:, 0] = 0
    if kind == "extreme":
        scale = 10.0 ** rng.choice([-18, -9, 9, 18])
    groups = form.groups
    group = np.arange(N) % groups
    if kind == "cells":
        group = np.minimum(np.maximum(np.arange(N) // 2 - (N // 2 - groups), 0), groups - 1)
    y = (rng.random((form.classes, N)) < 0.5).astype(np.int32)
    for g in range(groups):
        first, second = np.flatnonzero(group == g)[:2]
        y[:, first], y[:, second] = 0, 1
    if kind == "saturated":
        x[:, 0] = 30 * (2 * y[0] - 1)
    weight = np.ones(N)
    if kind != "cells":
        weight[2 * groups : 2 * groups + rng.integers(0, 4)] = 0
    l2, fairness = 10 ** rng.uniform(-8, 1), rng.choice([0, 1, 100, 1e4])
    noise = rng.choice([0, 0.01, 1, 1e3]) * rng.normal(size=(form.classes, d))
    numbers = {"x": x * scale, "w": weight, "l2": l2, "fairness": fairness, "noise": noise}
    return {k: np.asarray(v, dtype) for k, v in numbers.items()} | {"y": y, "group": group.astype(np.int32)}


def by_class(problem: dict[str, np.ndarray], classes: int) -> Iterator[dict[str, np.ndarray]]:
    """The problem of each class."""
    for k in range(classes):
        yield problem | {"y": problem["y"][k], "noise": problem["noise"][k]}


def start(rng: np.random.Generator, optimum: np.ndarray, p: dict[str, np.ndarray]) -> np.ndarray:
    """Where the parameters stand: at the rounded optimum, near it, or anywhere."""
    optimum = np.asarray(optimum, np.float64)
    where, off = rng.random(), 10 ** rng.uniform(-9, 0) * rng.normal(size=optimum.shape)
    if where < 0.15:
        return optimum
    if where < 0.7:
        return optimum * (1 + off)
    if where < 0.85:
        return optimum + off
    if where < 0.9:
        return np.zeros_like(optimum)
    return 10 ** rng.uniform(-2, 4) * rng.normal(size=optimum.shape) / np.abs(np.asarray(p["x"], float)).max()


def root(rng: np.random.Generator, d: int, dtype: Any) -> np.ndarray:
    """A factor of an arbitrary shape, whose condition number is up to 1e8."""
    turned = np.linalg.qr(rng.normal(size=(d, d)))[0]
    return (turned * 10 ** rng.uniform(-4, 0, d) * 10 ** rng.uniform(-3, 3)).astype(dtype)


@partial(jax.jit, static_argnums=0)
def bounds(form: Form, batch: dict[str, jax.Array], params: jax.Array):
    """Certified distances by name, the shapes by name, and the streams' parameters."""

    def one(p, at):
        objective = Objective(l2=p["l2"], fairness=p["fairness"], penalty=form.penalty, reweigh=form.reweigh)
        data = Data(p["x"], p["y"], p["group"], p["w"], form.groups)
        region = distances._region(objective, removal_of(at, data), p["noise"])
        ridge = N * p["l2"] * jnp.eye(form.d, dtype=at.dtype)
        shapes = {
            "shared": (p["x"] * p["w"][:, None]).T @ p["x"] / 4 + ridge,
            "any": p["root"] @ p["root"].T,
        }
        anchored, state = streamed(objective, data, at, p["noise"])
        found = {"convex": region.distance, "local": distances.local_distance(region)}
        found["stream"] = stream.distance_to_retrained(state)
        # By the factor of before the deletions, as served releases do.
        anchor_factor = factor.factorise(anchored, None)
        omega = factor.weakest(factor.quadratic(state), anchor_factor)
        found["stream_kept"] = jnp.where(omega > 0, factor.distance(state, anchor_factor, omega), jnp.inf)
        for name, shape in shapes.items():
            found[name] = distances.shaped_distance(region, shape)
            found["stream_" + name] = stream.distance_to_retrained(state, shape=shape)
        return found, shapes, state.params

    return jax.vmap(one)(batch, params)


def removal_of(params: jax.Array, data: Data) -> Removal:
    """Parameters, wherever they stand, as what a removal left."""
    zero = jnp.zeros((), params.dtype)
    return Removal(params, data, data.weight == 0, params, jnp.ones((), bool), zero, jnp.zeros((), jnp.int32))


def streamed(objective: Objective, data: Data, anchor: jax.Array, noise: jax.Array) -> tuple[State, State]:
    """A stream anchored where the parameters stand, and what it is when the rows of weight zero are deleted."""
    zero = jnp.zeros((), jnp.int32)
    whole, gone = (data._replace(weight=weight) for weight in (jnp.ones_like(data.weight), 1 - data.weight))
    state = state_of._anchor(objective, anchor, whole, noise, 1.0, 1e-5, 1.0, zero, zero)
    return state, state_of._delete(state, gone)


def compare(truth: Truth, at, optimum, wrong, metric, bound, digits, problems, form: Form) -> dict[str, Any]:
    """One bound beside the truth of every problem."""
    gap = at.astype(np.longdouble) - optimum
    if metric is None:
        true, off = norm(gap), wrong
    else:
        metric = metric.astype(np.longdouble)
        true = np.sqrt(np.maximum(np.einsum("bd,bde,be->b", gap, metric, gap), 0))
        largest = np.sqrt(np.einsum("bdd->b", metric))  # of the trace, an upper bound of its norm
        off = largest * (wrong + 64 * truth.unit * norm(gap))
    broken = np.isnan(bound)
    fine = (bound >= true + off) | (bound == np.inf)
    ratio = np.where(np.isfinite(bound) & (true > 0), bound / np.where(true > 0, true, 1), np.inf).astype(float)
    asked = np.flatnonzero(~fine & ~broken)
    asked = np.union1d(asked, np.argsort(ratio)[:digits])
    below = undecided = 0
    with mp.workdps(WORKING):
        for i in asked:
            p = problems[i]
            if "exact" not in p:
                p["exact"] = exact_optimum(p, form, optimum[i])
            if p["exact"] is None:
                undecided += not fine[i]
                continue
            apart = exact(at[i]) - p["exact"]
            square = apart @ apart if metric is None else apart @ exact(metric[i]) @ apart
            size = mp.sqrt(max(square, 0))
            ratio[i] = float(mp.mpf(float(bound[i])) / size) if size and np.isfinite(bound[i]) else np.inf
            below += bool(mp.mpf(float(bound[i])) < size)
    finite = np.isfinite(bound)
    return {
        "problems": len(bound),
        "finite": int(finite.sum()),
        "by_50_digits": len(asked),
        "below_truth": below,
        "undecided": undecided,
        "nan": int(broken.sum()),
        "least_ratio": float(ratio.min()),
        "median_ratio": float(np.median(ratio[finite])) if finite.any() else np.inf,
    }


def head(form: Form, problems, params, optimum, wrong) -> dict[str, Any]:
    """The distance of a head of all classes together."""
    k, count = form.classes, len(problems) // form.classes
    bound, ratio, asked, below, undecided = [], [], 0, 0, 0

    @jax.jit
    def certified(p, y, noise, at):
        objective = Objective(l2=p["l2"], fairness=p["fairness"], penalty=form.penalty, reweigh=form.reweigh)
        data = Data(p["x"], y, p["group"], p["w"], form.groups)
        return releases.distance_to_retrained(objective, removal_of(at, data), noise=noise)

    for i in range(count):
        part = slice(k * i, k * i + k)
        first = {key: jnp.asarray(problems[k * i][key]) for key in ("x", "l2", "fairness", "group", "w")}
        found = float(
            certified(
                first,
                *(np.stack([p[key] for p in problems[part]]) for key in ("y", "noise")),
                jnp.asarray(params[part]),
            )
        )
        gap = norm((params[part].astype(np.longdouble) - optimum[part]).ravel())
        bound.append(found)
        if not found >= gap + norm(wrong[part]):
            asked += 1
            with mp.workdps(WORKING):
                exactly = [exact_optimum(problems[j], form, optimum[j]) for j in range(k * i, k * i + k)]
                if any(at is None for at in exactly):
                    undecided += 1
                else:
                    apart = [exact(params[k * i + j]) - at for j, at in enumerate(exactly)]
                    gap = mp.sqrt(sum(v @ v for v in apart))
                    below += bool(mp.mpf(found) < gap)
        ratio.append(float(found / gap) if gap and np.isfinite(found) else np.inf)
    finite = np.isfinite(bound)
    return {
        "bound": "head", "problems": count, "finite": int(finite.sum()), "by_50_digits": asked, "below_truth": below,
        "undecided": undecided, "nan": int(np.isnan(bound).sum()), "least_ratio": float(np.min(ratio)),
        "median_ratio": float(np.median(np.array(ratio)[finite])) if finite.any() else np.inf,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(cli.run(main, Config, plan=plan))
