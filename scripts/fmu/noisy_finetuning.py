"""Certified deep models: noisy fine-tuning at three guarantees, beside retraining and certified heads.

    python -m scripts.fmu.noisy_finetuning --out runs/noisy_finetuning

A network with a fair loss is trained on all rows, forgets some of them, and is repaired by full gradient steps
without noise. Compared at an equal number of steps: certified fine-tuning around the initialisation ("init"), or
around one that was trained on public rows ("public"); retraining and uncertified fine-tuning from the same places;
and the release of a certified fair head on the public network's features. Routes: "output" only adds noise to the
clipped model; "gradient" takes noisy clipped steps, "model" steps of clipped models; "blocks" adds the noise to one
layer after the other and repairs the layers without noise in between. Tables are learnt by an MLP of one hidden layer,
Fashion-MNIST by a small LeNet on 14 x 14 pixels (the task of ``fmu_deep_audit``). It takes a minute for a seed and data
set on a busy core. There is one row for each data set, seed, method and number of repair steps; ``gradients`` counts
the rows whose gradients were computed.
"""

import itertools
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from scripts.fmu import deep_audit, problems
from scripts.harness import cli, looks, plot, report
from scripts.harness.experiment import Experiment, Part, Results, Row
from scripts.harness.lazy import fmu_jax, jax, jnp

COLORS = (looks.BLACK, looks.GREY, looks.VERMILION, looks.BLUE, looks.ORANGE, looks.SKY)
CENTERS = ("init", "public")
#: What a schedule has besides its clip: step size 0.05, gradients and models clipped to multiples of the start's clip.
ROUTES: dict[str, dict[str, float]] = {
    "output": {}, "gradient": {"gradient_clip": 0.5}, "model": {"model_clip": 1.0}, "blocks": {},
}  # fmt: skip


@dataclass(frozen=True)
class Config(problems.ProblemConfig):
    """Certified deep models beside retraining and heads."""

    PRESETS: ClassVar = {
        "quick": {"datasets": ("compas",), "repeats": 1, "rows": 400, "train_steps": 50, "mus": (1.0,)},
        "paper": {"rows": 20_000, "clips": (0.01, 0.1, 1.0), "checkpoints": (10, 30, 100, 300, 1000)},
    }

    datasets: tuple[Literal["compas", "adult", "hsls", "fashion_mnist"], ...] = ("compas", "adult", "fashion_mnist")  # pyright: ignore[reportIncompatibleVariableOverride]
    """Data sets; hsls needs --hsls."""
    l2: cli.Positive = 1e-3
    mus: tuple[cli.Positive, ...] = (0.5, 1.0, 2.0)
    """Gaussian-DP parameters of the guarantees."""
    clips: tuple[cli.Positive, ...] = (0.1, 1.0)
    """Radii of the balls to which the trained network is clipped."""
    checkpoints: tuple[cli.Count, ...] = (10, 30, 100)
    """Numbers of repair steps after which models are measured, ascending; they are always measured before the first."""
    routes: tuple[Literal["output", "gradient", "model", "blocks"], ...] = ("output", "gradient", "model", "blocks")
    """Routes to certified networks: noise alone (output), clipped steps with noise (gradient, model), or by layers."""
    block_steps: cli.Count = 50
    """Number of repair steps after each block except the last."""
    noisy_steps: cli.Count = 20
    """Number of noisy steps of the routes that take several."""
    rows: cli.Count = 2000
    """Number of training rows, and the largest number of test rows."""
    public: cli.Share = 0.3
    """Share of the training rows that are public; these are never forgotten."""
    forgotten: cli.Share = 0.05
    """Share of the training rows to forget."""
    admitted: cli.Positive = 0.005
    """Distance that the release of a head admits."""
    width: cli.Count = 16
    """Number of hidden units."""
    train_steps: cli.Count = 200
    """Number of steps of Adam in training."""
    learning_rate: cli.Positive = 0.02
    """Adam's learning rate, in training and repair."""


def plan(config: Config) -> list[dict[str, Any]]:
    """One unit for each data set and seed."""
    if list(config.checkpoints) != sorted(set(config.checkpoints)):
        raise ValueError(f"--checkpoints must ascend, got {' '.join(map(str, config.checkpoints))}")
    return config.units()


def rows_of(config: Config, *, dataset: str, seed: int) -> list[Row]:
    """All methods on one data set."""
    networks = fmu_jax.networks
    train, test = deep_audit.load(config, dataset, seed)
    model = networks.LeNet(config.width) if dataset == "fashion_mnist" else networks.Mlp(config.width)
    objective = fmu_jax.Objective(l2=config.l2, fairness=config.fairness, predict=model.apply)
    for_init, for_noise = jax.random.split(jax.random.fold_in(jax.random.key(seed), 11))
    n, init = len(train.y), model.init(for_init, train.x[:1])
    order = np.random.default_rng([seed, 5]).permutation(n)
    known, forget = np.split(order, [round(config.public * n)])
    forget = np.sort(forget[: round(config.forgotten * n)])
    is_public = np.isin(np.arange(n), known).astype(train.x.dtype)
    public = repaired(config, objective, init, train._replace(weight=jnp.asarray(is_public)), config.train_steps)
    whole = repaired(config, objective, init, train, config.train_steps)
    left = train._replace(weight=train.weight.at[forget].set(0))
    starts: list[tuple[Row, Any]] = [({"method": "finetune", "start": "trained"}, whole)]
    starts += [({"method": "retrain", "start": "init"}, init), ({"method": "retrain", "start": "public"}, public)]
    starts += certified(config, objective, train, forget, whole, {"init": init, "public": public}, for_noise)
    table, done = [], 0
    models = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(params for _, params in starts))
    for steps in (0, *config.checkpoints):
        models = jax.vmap(lambda params, more=steps - done: repaired(config, objective, params, left, more))(models)
        done = steps
        for k, (about, _) in enumerate(starts):
            params = jax.tree.map(lambda leaf, k=k: leaf[k], models)
            cost = about.get("gradients", 0) + steps * (n - len(forget))
            row = about | {"repair_steps": steps, "gradients": cost, "rows_removed": len(forget)}
            table.append(row | measured(objective, params, test))
    full = repaired(config, objective, init, left, config.train_steps)
    about = {"method": "retrain", "start": "init", "repair_steps": config.train_steps}
    table.append(about | {"gradients": config.train_steps * len(train.y)} | measured(objective, full, test))
    return table + heads(config, model, public, train, test, known, forget, for_noise)


def certified(config: Config, objective, train, forget, whole, centers: dict[str, Any], key) -> list[tuple[Row, Any]]:
    """A fine-tuned network for each center, route, clip and guarantee."""
    tuning, made = fmu_jax.noisy_finetuning, []
    size = sum(leaf.size for leaf in jax.tree.leaves(whole))
    for start, center in centers.items():
        for route in config.routes:
            for clip in config.clips:
                steps = {"gradient": config.noisy_steps, "model": 3}.get(route, 1)
                moves = {} if route in ("output", "blocks") else {"step_size": 0.05, "batch": 256, "decay": 1.0}
                relative = {name: factor * clip for name, factor in ROUTES[route].items()}
                shape = tuning.Schedule(start_clip=clip, noise=1.0, steps=steps, **moves, **relative)
                for mu in config.mus:
                    schedule = tuning.noise_for(shape, mu=mu, size=size, dtype=train.x.dtype)
                    own = jax.random.fold_in(key, len(made))
                    shared = {"key": own, "center": center}
                    if route == "blocks":
                        names = list(whole["params"])
                        noise = schedule.noise * (1 + 1e-5)  # Their mu is composed in the rows' precision.
                        shared |= {"blocks": names, "start_clip": clip / len(names) ** 0.5, "noise": noise}
                        shared |= {"repair_steps": config.block_steps, "learning_rate": config.learning_rate}
                        found = tuning.finetune_blocks(objective, whole, train, forget, **shared)
                    else:
                        found = tuning.finetune(objective, whole, train, forget, schedule=schedule, **shared)
                    about = {"method": f"noisy_{route}", "start": start, "clip": clip, "mu": mu}
                    about |= {"certified_mu": float(found.mu), "epsilon": float(found.epsilon)}
                    about |= {"noise": schedule.noise, "parameters": size}
                    between = (len(whole["params"]) - 1) * config.block_steps * (len(train.y) - len(forget))
                    cost = between if route == "blocks" else 256 * steps if moves else 0
                    made.append((about | {"gradients": cost}, found.params))
    return made


def repaired(config: Config, objective, params, rows, steps: int) -> Any:
    """Full gradient steps of Adam on the fair objective, without noise."""
    if steps == 0:
        return params
    nothing = np.zeros(0, int)
    options = {"method": "finetune", "steps": steps, "learning_rate": config.learning_rate}
    return fmu_jax.remove(objective, params, rows, nothing, **options).params


def heads(config: Config, model, public, train, test, known, forget, key) -> list[Row]:
    """Releases of a certified fair head on the public network's features; no metrics where one would be refused."""

    def features(data: Any) -> Any:
        hidden = jnp.asarray(model.apply(public, data.x, method="hidden"), jnp.float64)
        rows = fmu_jax.heads.as_rows(hidden, radius=config.width**0.5)
        return data._replace(x=rows, weight=data.weight.astype(rows.dtype))

    own = np.setdiff1d(np.arange(len(train.y)), known)
    part = features(jax.tree.map(lambda leaf: leaf[own], train))
    objective = fmu_jax.Objective(l2=config.l2, fairness=config.fairness)
    fitted = fmu_jax.fit(objective, part).params
    removal = fmu_jax.remove(objective, fitted, part, np.searchsorted(own, forget))
    distance, table = fmu_jax.releases.distance_to_retrained(objective, removal), []
    for mu in config.mus:
        scale = fmu_jax.releases.scale_for(config.admitted, mu=mu)
        about = {"method": "head", "start": "public", "mu": mu, "repair_steps": 0, "gradients": 0}
        about |= {"noise": float(scale), "distance": float(distance)}
        if not float(distance) <= config.admitted:
            table.append(about)  # Refused: nothing may be published.
            continue
        found = fmu_jax.releases.release(
            removal.params, distance, key=jax.random.fold_in(key, 10_000), scale=scale, admitted=config.admitted
        )
        about |= {"certified_mu": float(found.mu), "epsilon": float(found.epsilon)}
        table.append(about | measured(objective, found.params, features(test)))
    return table


def measured(objective, params, test) -> Row:
    """Accuracy and fairness on the test rows."""
    labels = fmu_jax.predict_labels(objective, params, test.x)
    return fmu_jax.metrics.columns(fmu_jax.metrics.group_metrics(labels, test))


def draw(config: Config, table: list[Row]) -> None:
    """Accuracy and odds gap against repair steps: the frontier, a column for each data set."""
    names = list(dict.fromkeys(row["dataset"] for row in table))
    ends = dict.fromkeys((min(config.mus), max(config.mus)))
    series: dict[str, Row] = {f"retrain from {start}": {"method": "retrain", "start": start} for start in CENTERS}
    for mu, start in itertools.product(ends, CENTERS):
        shown = {"method": "noisy_output", "start": start, "mu": mu, "clip": min(config.clips)}
        series[f"certified, mu {mu:g}, {start}"] = shown
    cells = [(measure, name) for measure in ("accuracy", "equalized_odds_mean") for name in names]
    titles = [plot.look(name).label for name in names] + [""] * len(names)
    with plot.panels(config.out / "frontier.png", titles, len(names)) as axes:
        for panel, (measure, name) in zip(axes, cells, strict=True):
            for color, (label, values) in zip(COLORS, series.items(), strict=False):
                own = report.where(table, dataset=name, **values)
                own = [row for row in own if row["repair_steps"] in (0, *config.checkpoints)]
                plot.curve(panel, own, looks.Look(label, color, "o"), x="repair_steps", y=measure)
            panel.set(xlabel="repair steps", ylabel=measure.replace("_", " "))


def section(results: Results) -> list[report.Block]:
    """The last checkpoint of each method."""
    last = max(row["repair_steps"] for row in results.rows if "clip" in row)
    table = [row for row in results.rows if row["repair_steps"] == last or row["method"] == "head"]
    columns = {"accuracy": "accuracy", "equalized_odds_mean": "average odds gap", "noise": "noise"}
    by = {"dataset": "data set", "method": "method", "start": "start", "clip": "clip", "mu": "mu"}
    return [report.Table(report.medians(table, by, columns), f"After {last} repair steps (test rows)."),
            *results.figures("frontier.png", "Accuracy and odds gap against repair steps")]  # fmt: skip


EXPERIMENT = Experiment(
    "fmu_noisy_finetuning", Config, rows_of, plan=plan, draw=draw, x64=True, section=section,
    heading="Deep models: certified by noisy fine-tuning",
    parts=(Part({"full": {"datasets": ("compas",), "repeats": 1}, "paper": {}}),),
)  # fmt: skip
EXPERIMENT.run_as(__name__)
