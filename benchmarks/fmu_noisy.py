"""How long it takes to forget rows from a network: retraining, certified fine-tuning by each route, a certified head.

    python -m benchmarks.fmu_noisy

Each forgets a twentieth of the rows of an MLP of 16 units on Adult, or of a small LeNet on Fashion-MNIST (the task of
``scripts.fmu.noisy_finetuning``). Networks are retrained by 200 or 100 steps of Adam, and repaired after the noise by
100; each step sees all rows. The head is Newton's step on the features of a network of public rows, with its certified
distance and its release. ``gradients`` counts gradients of rows; compilation is in ``first_ms`` alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from benchmarks import measure
from scripts.fmu import problems
from scripts.harness import cli
from scripts.harness.lazy import fmu_jax, jax, jnp

COLUMNS = ("dataset", "rows", "method", "repair_steps", "gradients", "median_ms", "min_ms", "max_ms", "cpu_ms",
           "first_ms", "of_retraining")  # fmt: skip
SCALE, ADMITTED = 0.1, 0.05
"""Noise of a released head and the distance that it admits; their size does not matter to the time."""


@dataclass(frozen=True)
class Config(problems.NetworkConfig):
    """Time what forgets rows of a network."""

    PRESETS: ClassVar = {}
    out: Path = Path("benchmarks/results")
    datasets: tuple[Literal["compas", "adult", "hsls", "fashion_mnist"], ...] = ("adult", "fashion_mnist")  # pyright: ignore[reportIncompatibleVariableOverride]
    """Data sets; hsls needs --hsls."""
    rows: cli.Count = 5000
    """Number of training rows."""
    mu: cli.Positive = 1.0
    """Gaussian-DP parameter of the guarantees."""
    clip: cli.Positive = 0.1
    """Radius of the ball to which the trained network is clipped."""
    repair_steps: cli.Count = 100
    """Number of repair steps."""
    repeats: cli.Count = 7
    """Number of timed calls."""


def main(config: Config) -> None:
    """Times every method on every data set, and publishes the table."""
    jax.config.update("jax_enable_x64", True)
    table = []
    for dataset in config.datasets:
        for about, call in calls(config, dataset):
            _, timing = measure.time_call(call, repeats=config.repeats)
            table.append({"dataset": dataset, "rows": config.rows} | about | timing)
            print(f"{dataset}, {about['method']}: {timing['median_ms']:.1f} ms", file=sys.stderr)
        here = [row for row in table if row["dataset"] == dataset]
        for row in here:
            row["of_retraining"] = row["median_ms"] / here[0]["median_ms"]
    command = measure.command("benchmarks.fmu_noisy")
    measure.publish("fmu_noisy", table, COLUMNS, command=command, out=config.out, case=("dataset", "rows"))


def calls(config: Config, dataset: str) -> Iterator[tuple[dict[str, Any], Callable[[], Any]]]:
    """What each method is called, and a call of it; retraining in full is the first."""
    train, _ = problems.load_rows(config, dataset, config.seed)
    model = fmu_jax.networks.LeNet(config.width) if dataset == "fashion_mnist" else fmu_jax.networks.Mlp(config.width)
    objective = config.objective(predict=model.apply)
    adam = partial(fmu_jax.networks.continue_adam, objective, learning_rate=config.learning_rate)
    key, n = jax.random.key(config.seed), len(train.y)
    init = model.init(key, train.x[:1])
    whole = adam(init, train, steps=config.train_steps)
    forget = np.random.default_rng(config.seed).permutation(n)[: n // 20]
    left = train._replace(weight=train.weight.at[forget].set(0))
    for steps in (config.train_steps, config.repair_steps):
        about = {"method": "retrain", "repair_steps": steps, "gradients": steps * (n - len(forget))}
        yield about, partial(adam, init, left, steps=steps)
    for route in fmu_jax.noisy_finetuning.ROUTES:
        about = {"mu": config.mu, "clip": config.clip, "key": key, "center": init}

        def certified(steps: int, route: str = route, about: dict[str, Any] = about) -> Any:
            found = fmu_jax.noisy_finetuning.finetune_by(route, objective, whole, train, forget, **about)
            return adam(found.model.params, left, steps=steps), found.gradients

        cost = int(certified(0)[1])
        for steps in (0, config.repair_steps):
            known = {"method": f"certified, {route}", "repair_steps": steps}
            yield known | {"gradients": cost + steps * (n - len(forget))}, partial(certified, steps)
    features, linear = fmu_jax.networks.hidden_rows(model, whole, train, dtype=jnp.float64), config.objective()
    fitted = fmu_jax.fit(linear, features).params

    def head() -> Any:
        removal = fmu_jax.remove(linear, fitted, features, forget)
        distance = fmu_jax.releases.distance_to_retrained(linear, removal)
        return fmu_jax.releases.release(removal.params, distance, key=key, scale=SCALE, admitted=ADMITTED)

    yield {"method": "head, certified and released", "repair_steps": 0, "gradients": 0}, head


if __name__ == "__main__":
    sys.exit(cli.run(main, Config, plan=lambda config: list(config.datasets)))
