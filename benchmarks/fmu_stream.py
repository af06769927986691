"""Certified deletions per second inside one ``lax.scan``, beside retraining for each request.

    python -m benchmarks.fmu_stream                                     # Adult, then d x n synthetic rows
    python -m benchmarks.fmu_stream --cases 21x10000 --requests 50      # a smoke run

A case is ``adult`` or ``DxN``: N training rows of D columns, the bias among them. ``delete_us`` is one deletion with
its certificate, ``serve_us`` the same with every refresh that (epsilon, delta) = (1, 1e-5) at sigma = 1 asks for,
``release_us`` with fresh noise on every model instead, and a refresh where its certified distance passes ``ADMITTED``,
both without ``call_ms``, which a call takes before its first request to check that the rows are those of the state;
``per_refresh`` how many deletions one refresh lasts (at least, where none was needed); ``retrain_ms`` is retraining
from zero for one request, ``refresh_ms`` re-solving from the current model. Float64, warm medians, compilation apart;
every case in a process of its own.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure
from scripts.harness import cli
from scripts.harness.lazy import fmu_jax, jax

COLUMNS = (
    "case", "n", "d", "delete_us", "deletions_per_s", "serve_us", "release_us", "call_ms", "served", "refreshes",
    "per_refresh", "refresh_ms", "retrain_ms", "times_faster", "start_ms",
)  # fmt: skip
GUARANTEE = {"sigma": 1.0, "delta": 1e-5, "budget": 1.0}
#: Distance to the retrained model that a release admits.
ADMITTED = 0.05


@dataclass(frozen=True)
class Config(cli.Common):
    """Time streaming removal over the numbers of rows and columns."""

    out: Path = Path("benchmarks/results")
    cases: tuple[str, ...] = (
        "adult", "8x10000", "8x10000000", "21x10000", "21x100000", "21x1000000", "21x10000000", "64x10000",
        "64x1000000", "128x100000", "512x10000", "512x100000",
    )  # fmt: skip
    """What to measure: adult, or COLUMNSxROWS."""
    requests: cli.Count = 10_000
    """Deletions to serve one by one; at most a quarter of the rows, and fewer where a matrix is large."""
    repeats: cli.Count = 5
    """Warm calls, of which the median counts."""


def plan(config: Config) -> list[str]:
    """The cases, checked."""
    for case in config.cases:
        sizes = case.split("x")
        if case != "adult" and not (len(sizes) == 2 and all(size.isdigit() for size in sizes)):
            raise ValueError(f"--cases: expected adult or COLUMNSxROWS such as 21x10000, got {case!r}")
        if case != "adult" and (int(sizes[0]) < 2 or int(sizes[1]) < 100):
            raise ValueError(f"--cases: {case!r} needs at least 2 columns and 100 rows")
    return list(config.cases)


def main(config: Config) -> None:
    """Runs every case in its own process and publishes its row as it ends, since all of them take 20 minutes."""
    jax.config.update("jax_enable_x64", True)  # What every case computes in, and the environment is to say.
    command = measure.command("benchmarks.fmu_stream")
    for case in plan(config):
        words = [case, str(config.seed), str(config.requests), str(config.repeats)]
        table = measure.in_own_process("benchmarks.fmu_stream", ["--case", *words])
        measure.publish("fmu_stream", table, COLUMNS, command=command, out=config.out, case=("case",))


def rows_of(case: str, seed: int) -> fmu_jax.Data:
    """Training rows of a case."""
    if case == "adult":
        return fmu_jax.datasets.load("adult", group="race", seed=seed).train
    d, n = map(int, case.split("x"))
    tests = max(200, n // 1000)
    return fmu_jax.datasets.synthetic(n + tests, d - 1, seed=seed, test_fraction=tests / (n + tests)).train


def measure_case(case: str, seed: int, requests: int, repeats: int) -> dict[str, Any]:
    """One line of the table."""
    jax.config.update("jax_enable_x64", True)
    data = rows_of(case, seed)
    n, d = data.x.shape
    objective = fmu_jax.Objective(l2=1e-4, fairness=1.0)
    noise = fmu_jax.sample_noise(data.x[0], key=jax.random.key(seed), sigma=1.0)
    fitted = fmu_jax.fit(objective, data, noise=noise)
    state, started = measure.time_call(
        lambda: fmu_jax.stream.start(objective, fitted, data, noise=noise, **GUARANTEE), repeats=repeats
    )
    count = min(requests, n // 4, math.ceil(2e8 / d**2) if d > 64 else requests)
    order = np.random.default_rng(seed).permutation(n)[:count]
    rows = jax.tree.map(lambda leaf: leaf[order], data)
    scan = jax.jit(lambda state, rows: jax.lax.scan(_delete, state, rows))
    _, deleted = measure.time_call(lambda: scan(state, rows), repeats=repeats)
    (after, remaining, served), serving = measure.time_call(
        lambda: fmu_jax.stream.serve(state, data, order), repeats=repeats
    )
    planned = {"key": jax.random.key(seed), "admitted": ADMITTED, "scale": fmu_jax.releases.scale_for(ADMITTED, mu=1.0)}
    _, releasing = measure.time_call(
        lambda: fmu_jax.stream.serve_releases(state, data, order, **planned), repeats=repeats
    )
    _, one = measure.time_call(lambda: fmu_jax.stream.serve(state, data, order[:1]), repeats=repeats)
    _, one_release = measure.time_call(
        lambda: fmu_jax.stream.serve_releases(state, data, order[:1], **planned), repeats=repeats
    )
    _, refreshed = measure.time_call(lambda: fmu_jax.stream.refresh(after, remaining), repeats=repeats)
    _, retrained = measure.time_call(
        lambda: fmu_jax.remove(objective, fitted.params, data, order[:1], noise=noise, method="retrain"),
        repeats=repeats,
    )
    # How long one refresh lasts: up to a quarter of the rows, whatever was served above.
    longest = min(n // 4, 50_000 if d <= 64 else count)
    many = np.random.default_rng(seed).permutation(n)[:longest]
    _, epsilons = scan(state, jax.tree.map(lambda leaf: leaf[many], data))
    over = np.flatnonzero(np.asarray(epsilons) > GUARANTEE["budget"])
    delete_us = 1e3 * deleted["median_ms"] / count
    return {
        "case": case,
        "n": n,
        "d": d,
        "delete_us": delete_us,
        "deletions_per_s": 1e6 / delete_us,
        "serve_us": 1e3 * (serving["median_ms"] - one["median_ms"]) / (count - 1),
        "release_us": 1e3 * (releasing["median_ms"] - one_release["median_ms"]) / (count - 1),
        "call_ms": one_release["median_ms"],
        "served": count,
        "refreshes": int(served.refreshed.sum()),
        "refresh_share": float(served.refreshed.mean()),
        "per_refresh": int(over[0]) + 1 if len(over) else f">= {longest}",
        "refresh_ms": refreshed["median_ms"],
        "retrain_ms": retrained["median_ms"],
        "times_faster": 1e3 * retrained["median_ms"] * count / (1e3 * serving["median_ms"]),
        "start_ms": started["median_ms"],
        "peak_mb": measure.peak_memory_mb(),
    }


def _delete(state, row):
    state = fmu_jax.stream.delete(state, row)
    return state, state.epsilon


if __name__ == "__main__":
    if sys.argv[1:2] == ["--case"]:
        case, *numbers = sys.argv[2:]
        print(json.dumps([measure_case(case, *map(int, numbers))]))
    else:
        sys.exit(cli.run(main, Config, plan=plan))
