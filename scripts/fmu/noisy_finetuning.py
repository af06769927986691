"""Certified deep models: noisy fine-tuning at three guarantees, beside retraining and certified heads.

    python -m scripts.fmu.noisy_finetuning --out runs/noisy_finetuning

Compared at an equal number of repair steps (full gradients, no noise): certified fine-tuning by the routes of
``fmu_jax.noisy_finetuning``, around the initialisation ("init") or a network of public rows ("public"); retraining and
uncertified fine-tuning from the same places; and the release of a certified fair head on the public network's features.
Tables and a network's features of CIFAR-10 (animals or vehicles) are learnt by an MLP, Fashion-MNIST by a small LeNet
(the task of ``fmu_deep_audit``). There is one row for each data set, seed, method and number of repair steps;
``gradients`` counts the rows whose gradients were computed.
"""

import itertools
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from scripts.fmu import problems
from scripts.harness import cli, looks, report
from scripts.harness.experiment import Experiment, Part, Results, Row
from scripts.harness.lazy import fmu_jax, jax

COLORS = (looks.BLACK, looks.GREY, looks.VERMILION, looks.BLUE, looks.ORANGE, looks.SKY)
CENTERS = ("init", "public")


@dataclass(frozen=True)
class Config(problems.NetworkConfig):
    """Certified deep models beside retraining and heads."""

    PRESETS: ClassVar = {
        "quick": {"datasets": ("compas",), "repeats": 1, "rows": 400, "train_steps": 50, "mus": (1.0,)},
        "paper": {"rows": 20_000, "clips": (0.01, 0.1, 1.0), "checkpoints": (10, 30, 100, 300, 1000)},
    }

    datasets: tuple[Literal["compas", "adult", "hsls", "fashion_mnist", "cifar10"], ...] = (  # pyright: ignore[reportIncompatibleVariableOverride]
        "compas", "adult", "fashion_mnist",
    )  # fmt: skip
    """Data sets; hsls needs --hsls; cifar10 is of the features of --network."""
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
    public: cli.Share = 0.3
    """Share of the training rows that are public; these are never forgotten."""
    forgotten: cli.Share = 0.05
    """Share of the training rows to forget."""
    admitted: cli.Positive = 0.005
    """Distance that the release of a head admits."""

    def units(self) -> list[dict[str, Any]]:
        """As of every experiment; checkpoints must ascend."""
        if list(self.checkpoints) != sorted(set(self.checkpoints)):
            raise ValueError(f"--checkpoints must ascend, got {' '.join(map(str, self.checkpoints))}")
        return super().units()


def rows_of(config: Config, *, dataset: str, seed: int) -> list[Row]:
    """All methods on one data set."""
    train, test = problems.load_rows(config, dataset, seed)
    network = fmu_jax.networks.LeNet if dataset == "fashion_mnist" else fmu_jax.networks.Mlp
    names = ("public", "forgotten", "train_steps", "learning_rate", "checkpoints", "mus", "admitted", "routes", "clips")
    how: dict[str, Any] = {name: getattr(config, name) for name in names}
    how |= {"steps": config.noisy_steps, "repair_steps": config.block_steps, "seed": seed}
    how |= {"key": jax.random.fold_in(jax.random.key(seed), 11)}
    return fmu_jax.frontier.frontier_table(config.objective(), network(config.width), train, test, **how)


def draw(config: Config, table: list[Row]) -> None:
    """Draw accuracy and odds gap against repair steps: the frontier."""
    table = [row for row in table if row["repair_steps"] in (0, *config.checkpoints)]
    series = {f"retrain from {start}": {"method": "retrain", "start": start} for start in CENTERS}
    for mu, start in itertools.product(dict.fromkeys((min(config.mus), max(config.mus))), CENTERS):
        shown = {"method": "noisy_output", "start": start, "mu": mu, "clip": min(config.clips)}
        series[f"certified, mu {mu:g}, {start}"] = shown
    curves = [
        (looks.Look(label, color, "o"), report.where(table, **values))
        for color, (label, values) in zip(COLORS, series.items(), strict=False)
    ]
    problems.draw_costs(config.out / "frontier.png", config.datasets, curves, x="repair_steps", xlabel="repair steps")


def section(results: Results) -> list[report.Block]:
    """The last checkpoint of each method."""
    last = max(row["repair_steps"] for row in results.rows if "clip" in row)
    table = [row for row in results.rows if row["repair_steps"] == last or row["method"] == "head"]
    by, columns = ("dataset", "method", "start", "clip", "mu"), ("accuracy", "equalized_odds_mean", "noise")
    return [report.Table(report.medians(table, by, columns), f"After {last} repair steps (test rows)."),
            *results.figures("frontier.png", "Accuracy and odds gap against repair steps")]  # fmt: skip


EXPERIMENT = Experiment(
    "fmu_noisy_finetuning", Config, rows_of, draw=draw, x64=True, section=section,
    heading="Deep models: certified by noisy fine-tuning",
    parts=(Part({"full": {"datasets": ("compas",), "repeats": 1}, "paper": {}}),),
)  # fmt: skip
EXPERIMENT.run_as(__name__)
