"""Certified fair heads on MLP features, beside the linear model on the raw columns.

    python -m scripts.fmu.embeddings --out runs/embeddings

After the authors' embedding experiments (their loaders' ``private_embeddings``: features of an MLP trained by L-BFGS,
whose files were not published, so that numbers cannot be compared). A part of the training rows is public: nobody asks
to remove them. The rest are the rows that the head is trained on and forgets. Features: "raw" columns; "frozen", hidden
units of an MLP trained by L-BFGS on the public rows; "private", of one trained by DP-SGD on the head's own rows, whose
price, once for each removed row, is added to the head's epsilon. Differs from the original: rows are scaled one by one
(D15), where the original divides by the largest norm of training rows (and test rows by that of rows scaled already).
One to two minutes on two cores. Rows: one for each data set, features, seed, number of rows removed and method.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from fmu_jax import Data, Objective, fit, heads, metrics, sample_noise
from fmu_jax.forget_sets import draw_rows
from fmu_jax.private_training import train_private
from scripts.fmu import problems
from scripts.fmu.problems import ProblemConfig
from scripts.harness import cli, plot

METHODS = ("retrain", "no_removal", "fair_newton", "newton", "influence")
SHOWN = {
    "accuracy": "accuracy (test)",
    "equalized_odds_mean": "average odds gap (test)",
    "distance": "distance to the retrained head",
    "total_epsilon": "epsilon, features and head",
}
Features = Literal["raw", "frozen", "private"]


class Mlp(linen.Module):
    """One hidden layer of tanh units; ``hidden`` are the features."""

    width: int

    def setup(self):
        """The two layers."""
        self.first = linen.Dense(self.width, param_dtype=jnp.float64)
        self.last = linen.Dense(1, param_dtype=jnp.float64)

    def hidden(self, x):
        """Units in [-1, 1], ``(n, width)``."""
        return jnp.tanh(self.first(x))

    def __call__(self, x):
        """Log-odds, ``(n,)``."""
        return self.last(self.hidden(x))[..., 0]


@dataclass(frozen=True)
class HeadsConfig(ProblemConfig):
    """Flags of every script on certified heads."""

    counts: tuple[cli.Count, ...] = (1, 10, 100, 1000)
    """Numbers of rows to remove at once."""
    public: cli.Share = 0.3
    """Share of the training rows that are public: the frozen extractor's."""
    delta: cli.Probability = 1e-5
    """Failure probability of the head's certificate, and of a private extractor's guarantee for one row."""


@dataclass(frozen=True)
class Config(HeadsConfig):
    """Certified fair heads on features."""

    PRESETS: ClassVar = {
        "quick": {"repeats": 1, "datasets": ("compas",), "counts": (1, 100), "private_steps": 100},
        "paper": {"repeats": 5},
    }

    out: Path = Path("runs/fmu_embeddings")
    repeats: cli.Count = 1
    """Seeds, counted from --seed."""
    features: tuple[Features, ...] = ("raw", "frozen", "private")
    """What the head is trained on."""
    width: cli.Count = 16
    """Hidden units."""
    extractor_epsilon: cli.Positive = 1.0
    """Epsilon of the private extractor for one row."""
    private_steps: cli.Count = 300
    """Steps of DP-SGD."""


def plan(config: Config) -> list[dict[str, Any]]:
    """One unit for each data set, kind of features and seed."""
    return config.units(features=config.features)


def main(config: Config) -> None:
    """Runs what is not done yet and draws the figures."""
    draw(config.out, problems.run_units(config, plan(config), rows_of))


def rows_of(config: Config, *, dataset: str, features: str, seed: int) -> list[dict[str, Any]]:
    """All removals from one head."""
    split = problems.load_split(config, dataset, seed)
    objective = Objective(l2=config.l2, fairness=config.fairness)
    key = jax.random.fold_in(jax.random.key(seed), 0)
    train, test, price = embed(config, features, split.train, split.test, seed)
    noise = sample_noise(train.x[0], key=key, sigma=config.sigma)
    return removals(config, objective, train, test, noise, price, seed)


def removals(
    config: HeadsConfig, objective: Objective, train: Data, test: Data, noise: jax.Array, price, seed: int
) -> list[dict[str, Any]]:
    """One head, or one for each class, and every removal from it; ``price`` is of its features, for one row."""
    before, n = heads.fit_head(objective, train, noise=noise).params, len(train.weight)
    table = []
    for count in config.counts:
        # Of many classes the first stands for all here; the head itself refuses to empty any of them.
        rows = draw_rows(train._replace(y=train.y.reshape(-1, n)[0]), count, seed=seed)
        if rows is None:
            continue
        retrained = None
        for method in METHODS:
            row, params = _one(config, objective, before, train, test, rows, noise, method, price)
            retrained = params if retrained is None else retrained
            distance = float(jnp.linalg.norm(params - retrained))
            table.append({"rows_removed": count, "train_rows": n, "method": method, "distance": distance} | row)
    if not table:
        raise ValueError(f"--counts: none of {', '.join(map(str, config.counts))} rows can be removed from {n}")
    return table


def embed(config: Config, features: str, train: Data, test: Data, seed: int) -> tuple[Data, Data, tuple[float, float]]:
    """The head's training rows, the test rows, and the extractor's (epsilon, delta) for one row."""
    order = np.random.default_rng([seed, 5]).permutation(len(train.y))
    public = round(config.public * len(order))
    known, own = (jax.tree.map(lambda leaf, at=at: leaf[at], train) for at in (order[:public], order[public:]))
    if features == "raw":
        return own, test, (0.0, 0.0)
    model = Mlp(config.width)
    for_init, for_noise = jax.random.split(jax.random.fold_in(jax.random.key(seed), 1))
    params, price = model.init(for_init, train.x[:1]), (0.0, 0.0)
    if features == "frozen":
        plain = Objective(l2=config.l2, predict=model.apply)
        params = fit(plain, known, init=params, max_steps=300, throw=False).params
    else:

        def loss(params, row):
            score = jnp.asarray(model.apply(params, row[0]))
            return jax.nn.softplus(score) - row[1] * score

        found = train_private(
            loss, params, (own.x, own.y.astype(own.x.dtype)), key=for_noise, epsilon=config.extractor_epsilon,
            delta=config.delta, steps=config.private_steps,
        )  # fmt: skip
        params, price = found.params, (found.epsilon, found.delta)

    def rows(data: Data) -> Data:
        hidden = jnp.asarray(model.apply(params, data.x, method="hidden"))
        return data._replace(x=heads.as_rows(hidden, radius=config.width**0.5))

    return rows(own), rows(test), price


def _one(
    config: HeadsConfig, objective, before, train, test, rows, noise, method, price
) -> tuple[dict[str, Any], jax.Array]:
    """One removal: its row and its parameters."""
    if method == "no_removal":
        return measured(before, test), before
    removal = heads.remove_head(objective, before, train, rows, noise=noise, method=method, allow_unfair=True)
    row = measured(removal.params, test)
    if config.sigma > 0:
        head = heads.certify_head(objective, before, removal, sigma=config.sigma, delta=config.delta, noise=noise)
        whole = heads.with_features(head, epsilon=price[0], delta=price[1], rows=len(rows))
        row |= {"residual_norm": float(head.residual_norm), "head_epsilon": float(head.epsilon)}
        row |= {"total_epsilon": float(whole.epsilon), "total_delta": float(whole.delta)}
        row |= {"extractor_epsilon": price[0], "local_distance_bound": float(head.local_distance_bound)}
    return row, removal.params


def measured(params: jax.Array, test: Data) -> dict[str, Any]:
    """Metrics of a head on the test rows; of many classes, accuracy, and the gaps' means over the classes."""
    label = heads.predict_head(params, test.x)
    if params.ndim == 1:
        return problems.metric_columns(metrics.group_metrics(label, test))
    of_class = jax.vmap(lambda c, y: metrics.group_metrics((label == c).astype(jnp.int32), test._replace(y=y)))
    gaps = of_class(jnp.arange(len(params), dtype=label.dtype), test.y)
    names = ("equalized_odds", "equalized_odds_mean", "demographic_parity", "equal_opportunity")
    right = test.y[label, jnp.arange(len(label))].mean()
    return {"accuracy": float(right)} | {name: float(getattr(gaps, name).mean()) for name in names}


def draw(out: Path, table: Sequence[dict[str, Any]]) -> list[Path]:
    """One figure a data set: measures by features against the number of rows removed."""
    paths = []
    for dataset in dict.fromkeys(row["dataset"] for row in table):
        part = [row for row in table if row["dataset"] == dataset]
        kinds = list(dict.fromkeys(row["features"] for row in part))
        titles = [f"{plot.look(dataset).label}, {kind}" for kind in kinds]
        figure, axes = plot.figure(len(SHOWN), len(kinds), titles=titles, share_y=True, height=2.2)
        for line, (column, label) in enumerate(SHOWN.items()):
            for panel, kind in zip(axes[line], kinds, strict=True):
                chosen = [row for row in part if row["features"] == kind and row.get(column) is not None]
                if column == "distance":
                    chosen = [row for row in chosen if row["method"] != "retrain"]
                plot.lines(panel, chosen, x="rows_removed", y=column)
                panel.set_xscale("log")
                panel.set_xlabel("rows removed")
                panel.set_ylabel(label if kind == kinds[0] else "")
                if column in ("distance", "total_epsilon"):
                    panel.set_yscale("log")
        plot.legend(figure)
        paths.append(plot.save(figure, out / f"embeddings_{dataset}.png"))
    return paths


if __name__ == "__main__":
    sys.exit(cli.run(main, Config, plan=plan))
