"""Time and memory of ``fit``, ``fair_newton`` and ``certify``, beside a scikit-learn refit of the plain loss.

    python -m benchmarks.fmu_removal                                     # Adult, then synthetic rows up to 10^7
    python -m benchmarks.fmu_removal --cases synthetic --sizes 10000     # a smoke run

Every case runs in a process of its own, so that its peak memory is its own. Times are warm medians in milliseconds,
compilation apart. ``peak_mb`` covers fitting and removing, ``certify_peak_mb`` all; ``memory_ratio`` is what fitting
and removing took beyond the imports, over the bytes of the data. The peer fits the plain loss (it knows no penalty).
``product_ms`` is the least that a Newton step can take: NumPy's ``X'WX`` of the same rows, in the same process;
``removal_products`` and its like say how many of these a call takes, and ``fit_step_products`` a step of the fit.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks import measure
from scripts.harness import cli
from scripts.harness.lazy import fmu_jax, jax

COLUMNS = (
    "case", "n", "d", "fit_ms", "fit_steps", "fair_newton_ms", "retrain_ms", "certify_ms", "sklearn_refit_ms",
    "product_ms", "removal_products", "certify_products", "fit_products", "fit_step_products",
    "peak_mb", "memory_ratio", "certify_peak_mb", "compile_ms",
)  # fmt: skip


@dataclass(frozen=True)
class Config(cli.Common):
    """Time removal on Adult and on synthetic rows of growing number."""

    out: Path = Path("benchmarks/results")
    cases: tuple[Literal["adult", "synthetic"], ...] = ("adult", "synthetic")
    """What to measure."""
    sizes: tuple[cli.Count, ...] = (10_000, 100_000, 1_000_000, 10_000_000)
    """Numbers of synthetic rows (one in a thousand for testing), 20 features each and the bias."""
    repeats: cli.Count = 7
    """Warm calls, of which the median counts."""


def plan(config: Config) -> list[str]:
    """The cases."""
    sizes = map(str, config.sizes) if "synthetic" in config.cases else ()
    return [*(["adult"] if "adult" in config.cases else []), *sizes]


def main(config: Config) -> None:
    """Runs every case in its own process and publishes the table."""
    jax.config.update("jax_enable_x64", True)  # What every case computes in, and the environment is to say.
    table = []
    for case in plan(config):
        words = [case, str(config.seed), str(config.repeats)]
        (row,) = measure.in_own_process("benchmarks.fmu_removal", ["--case", "jax", *words])
        (peer,) = measure.in_own_process("benchmarks.fmu_removal", ["--case", "sklearn", *words])
        table.append(row | peer)
        print(f"{case}: done", file=sys.stderr)
    measure.publish("fmu_removal", table, COLUMNS, command=measure.command("benchmarks.fmu_removal"), out=config.out)


def rows_of(case: str, seed: int) -> fmu_jax.Data:
    """Training rows of a case: Adult, or so many synthetic ones."""
    if case == "adult":
        return fmu_jax.datasets.load("adult", group="race", seed=seed).train
    return fmu_jax.datasets.synthetic(int(case), 20, seed=seed, test_fraction=0.001).train


def jax_case(case: str, seed: int, repeats: int) -> dict[str, Any]:
    """Our side: fit, one removal of 5 % at random, retraining, certificate."""
    jax.config.update("jax_enable_x64", True)
    before_mb = measure.peak_memory_mb()
    data = rows_of(case, seed)
    size_mb = sum(leaf.nbytes for leaf in jax.tree.leaves(data)) / 1e6
    objective = fmu_jax.Objective(l2=1e-4, fairness=1.0)
    noise = fmu_jax.sample_noise(data.x[0], key=jax.random.key(seed), sigma=1.0)
    n = len(data.y)
    forget = np.random.default_rng(seed).choice(n, n // 20, replace=False)
    result, fitted = measure.time_call(lambda: fmu_jax.fit(objective, data, noise=noise), repeats=repeats)
    params = result.params
    removal, removed = measure.time_call(
        lambda: fmu_jax.remove(objective, params, data, forget, noise=noise), repeats=repeats
    )
    peak_mb = measure.peak_memory_mb()
    _, again = measure.time_call(
        lambda: fmu_jax.remove(objective, params, data, forget, noise=noise, method="retrain"), repeats=repeats
    )
    _, certified = measure.time_call(
        lambda: fmu_jax.certify(objective, params, removal, sigma=1.0, delta=1e-5, noise=noise), repeats=repeats
    )
    peak_all_mb = measure.peak_memory_mb()
    x, weights = np.asarray(data.x), np.random.default_rng(seed).uniform(0.1, 0.25, (n, 1))
    _, product = measure.time_call(lambda: x.T @ (weights * x), repeats=repeats)
    products = {
        f"{name}_products": timing["median_ms"] / product["median_ms"]
        for name, timing in (("removal", removed), ("certify", certified), ("fit", fitted))
    }
    return {
        "case": case,
        "n": n,
        "d": data.x.shape[1],
        "fit_ms": fitted["median_ms"],
        "fit_steps": int(result.steps),
        "fair_newton_ms": removed["median_ms"],
        "retrain_ms": again["median_ms"],
        "certify_ms": certified["median_ms"],
        "peak_mb": peak_mb,
        "certify_peak_mb": peak_all_mb,
        "memory_ratio": (peak_mb - before_mb) / size_mb,
        "compile_ms": sum(timing["first_ms"] - timing["median_ms"] for timing in (fitted, removed)),
        "product_ms": product["median_ms"],
        "fit_step_products": products["fit_products"] / max(int(result.steps), 1),
    } | products


def sklearn_case(case: str, seed: int, repeats: int) -> dict[str, Any]:
    """What a user would run instead: refit scikit-learn's LogisticRegression, plain loss, on what remains."""
    from sklearn.linear_model import LogisticRegression

    jax.config.update("jax_enable_x64", True)
    data = rows_of(case, seed)
    x, y = np.asarray(data.x)[:, :-1], np.asarray(data.y)
    keep = np.ones(len(y), bool)
    keep[np.random.default_rng(seed).choice(len(y), len(y) // 20, replace=False)] = False

    def refit():
        rows, labels = x[keep], y[keep]
        return LogisticRegression(C=1 / (1e-4 * len(labels)), tol=1e-8, max_iter=10_000).fit(rows, labels).coef_

    _, timing = measure.time_call(refit, repeats=min(repeats, 3))
    return {"sklearn_refit_ms": timing["median_ms"]}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--case"]:
        side, case, seed, repeats = sys.argv[2:6]
        print(json.dumps([{"jax": jax_case, "sklearn": sklearn_case}[side](case, int(seed), int(repeats))]))
    else:
        sys.exit(cli.run(main, Config, plan=plan))
