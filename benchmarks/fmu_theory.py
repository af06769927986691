"""Biased deletions and single rows of the linear model: is one Newton step enough, and what does a row alone cost?

    python -m benchmarks.fmu_theory                                         # COMPAS and Adult, 4,000 rows each
    python -m benchmarks.fmu_theory --datasets hsls --hsls data/hsls

Forgotten is a share of the rows: random ones, of the smallest or largest group, those of the largest loss, or those of
the largest leverage ``|x|_{H^-1}``. ``fair_newton`` takes one step or two, ``trust_region`` steps to convergence;
``influence`` takes one with the Hessian of all rows. ``hessian_free`` adds vectors of 300 full gradient steps from zero
and is of the plain objective, beside Newton's step on that (``plain``). ``moved`` is the distance of doing nothing to
the retrained model, fitted to 1e-12, and ``distance`` that of the method; for ``hessian_free`` both are to the end of
the same 300 steps without these rows. ``certified`` bounds the distance to the fitted model. Deletion ``row``:
certified distances when one row alone is removed, at quantiles over rows drawn at random, and the largest one drawn.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchmarks import measure
from scripts.fmu.problems import ProblemConfig, load_split
from scripts.harness import cli
from scripts.harness.lazy import fmu_jax, jax, jnp

KINDS = ("random", "minority", "majority", "loss", "leverage")
METHODS: dict[str, dict[str, Any]] = {
    "fair_newton": {"method": "fair_newton"},
    "fair_newton, 2 steps": {"method": "fair_newton", "steps": 2},
    "trust_region": {"method": "trust_region"},
    "influence": {"method": "influence"},
}
COLUMNS = ("dataset", "seed", "deletion", "method", "steps", "moved", "distance", "certified", "row_q50", "row_q95",
           "row_largest")  # fmt: skip


@dataclass(frozen=True)
class Config(ProblemConfig):
    """Measure biased deletions and single rows."""

    PRESETS: ClassVar = {}
    out: Path = Path("benchmarks/results")
    l2: cli.Positive = 1e-3
    """Ridge strength per row."""
    repeats: cli.Count = 1
    """Number of seeds."""
    rows: cli.Count = 4000
    """Largest number of training rows."""
    fraction: cli.Share = 0.1
    """Share of the rows to forget."""
    alone: cli.Count = 200
    """Number of rows that are removed alone."""


def main(config: Config) -> None:
    """Measures every data set and seed, and publishes the table."""
    jax.config.update("jax_enable_x64", True)
    table = []
    for dataset in config.datasets:
        for seed in range(config.seed, config.seed + config.repeats):
            table += [{"dataset": dataset, "seed": seed} | row for row in measured(config, dataset, seed)]
            print(f"{dataset}, seed {seed}: done", file=sys.stderr)
    command = measure.command("benchmarks.fmu_theory")
    measure.publish("fmu_theory", table, COLUMNS, command=command, out=config.out, case=("dataset", "seed"))


def measured(config: Config, dataset: str, seed: int) -> list[dict[str, Any]]:
    """All rows of one data set and seed."""
    train = load_split(config, dataset, seed).train
    order = np.random.default_rng([seed, 7]).permutation(len(train.y))[: config.rows]
    data = jax.tree.map(lambda leaf: jnp.asarray(leaf)[order], train)
    fair, plain = fmu_jax.Objective(l2=config.l2, fairness=config.fairness), fmu_jax.Objective(l2=config.l2)
    start = jnp.zeros(data.x.shape[1])
    best, simple = (fmu_jax.fit(objective, data, tolerance=1e-12).params for objective in (fair, plain))
    descend = partial(fmu_jax.removal.recollect, plain, start, steps=300)
    stored = descend(data=data, step_size=1.0)
    table = []
    for kind in KINDS:
        rows = chosen(config, fair, best, data, kind, seed)
        if rows is None:
            continue
        for name, options in METHODS.items():
            table.append({"deletion": kind, "method": name} | compared(fair, best, data, rows, options))
        table.append(
            {"deletion": kind, "method": "plain, fair_newton"}
            | compared(plain, simple, data, rows, METHODS["fair_newton"])
        )
        left = np.delete(np.arange(len(order)), rows)
        # Divided by the number of all rows, as the vectors have it: what remains is a share of every step.
        remaining = jax.tree.map(lambda leaf: leaf[left], data)  # noqa: B023 - called at once
        without = descend(data=remaining, step_size=len(left) / len(order)).params
        vectors = {"method": "hessian_free", "vectors": stored.vectors}
        table.append(
            {"deletion": kind, "method": "plain, hessian_free"}
            | compared(plain, stored.params, data, rows, vectors, truth=without)
        )
    alone = np.sort(np.random.default_rng([seed, 8]).permutation(len(order))[: config.alone])
    distances = fmu_jax.releases.row_distances(fair, best, data, alone)
    quantiles = dict(zip(("row_q50", "row_q95"), np.quantile(distances, (0.5, 0.95)).tolist(), strict=True))
    return [*table, {"deletion": "row", "method": "fair_newton", "row_largest": float(distances.max())} | quantiles]


def chosen(config: Config, objective: fmu_jax.Objective, params: jax.Array, data: Any, kind: str, seed: int) -> Any:
    """Which rows are forgotten, or None where they cannot be."""
    count = round(config.fraction * len(data.y))
    if kind not in ("loss", "leverage"):
        return fmu_jax.forget_sets.draw_rows(data, count, subset=kind, seed=seed)
    if kind == "loss":
        score = jax.nn.softplus((1 - 2 * data.y) * (data.x @ params))
    else:
        score = jnp.sum(data.x * jnp.linalg.solve(fmu_jax.objective.hessian(objective, params, data), data.x.T).T, 1)
    rows = np.argsort(-np.asarray(score), kind="stable")[:count]
    left = np.delete(np.arange(len(data.y)), rows)
    cells = set(zip(np.asarray(data.group)[left].tolist(), np.asarray(data.y)[left].tolist(), strict=True))
    return np.sort(rows) if len(cells) == 2 * data.groups else None


def compared(
    objective: fmu_jax.Objective, params: jax.Array, data: Any, rows: Any, options: dict[str, Any], truth: Any = None
) -> dict[str, Any]:
    """A removal beside ``truth``, which is the retrained minimiser if it is None."""
    removal = fmu_jax.remove(objective, params, data, rows, throw=False, **options)
    if truth is None:
        truth = fmu_jax.fit(objective, removal.data, tolerance=1e-12).params
    return {
        "steps": int(removal.steps),
        "moved": float(jnp.linalg.norm(params - truth)),
        "distance": float(jnp.linalg.norm(removal.params - truth)),
        "certified": float(fmu_jax.releases.distance_to_retrained(objective, removal)),
    }


if __name__ == "__main__":
    sys.exit(cli.run(main, Config, plan=lambda config: list(config.datasets)))
