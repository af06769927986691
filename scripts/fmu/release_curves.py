"""Does any test between the two worlds beat the certified trade-off curve of releases?

    python -m scripts.fmu.release_curves --out runs/release_curves        # 10^6 series a world

Settings and their variants are those of ``fmu_jax.audit.worlds``. Rows hold the misses at each share of false alarms,
with bounds that hold for all of them at 99.9 %; ``beaten`` says whether even a bound lies below the curve.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from scripts.harness import cli, looks, plot, report
from scripts.harness.experiment import Experiment, Part, Results, Row
from scripts.harness.lazy import fmu_jax, jax

COLORS = {"honest": looks.BLUE, "admitted": looks.GREEN, "half noise": looks.VERMILION}
Setting = Literal["one parameter", "21 columns", "adaptive", "stream"]


@dataclass(frozen=True)
class Config(cli.Repeated):
    """Compare empirical trade-offs with the certified curve."""

    PRESETS: ClassVar = {"quick": {"draws": 20_000}}
    AXES: ClassVar = {"setting": "settings", "variant": tuple(COLORS)}

    settings: tuple[Setting, ...] = ("one parameter", "21 columns", "adaptive", "stream")
    """Settings, which say what each series publishes."""
    draws: cli.Count = 1_000_000
    """Number of series in each world, rounded up to chunks of 10,000."""


def rows_of(config: Config, *, setting: str, variant: str, seed: int) -> list[Row]:
    """Misses against false alarms of one setting."""
    worlds = fmu_jax.audit.worlds
    place = 3 * list(worlds.SETTINGS).index(setting) + list(COLORS).index(variant)
    world = worlds.SETTINGS[setting](variant)
    curve = worlds.curve(world, config.draws, key=jax.random.fold_in(jax.random.key(seed), place))
    columns, about = curve._asdict(), {"draws": curve.draws, "refreshed": world.refreshed}
    del columns["draws"]
    return [about | dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def draw(config: Config, table: list[Row]) -> None:
    """Draw misses against false alarms, a panel a setting, with the certified curve."""
    alpha = np.linspace(1e-4, 1 - 1e-4, 400)
    curve = np.asarray(fmu_jax.releases.trade_off(1.0, alpha))
    with plot.panels(config.out / "release_curves.png", config.settings, width=2.9, height=2.9) as axes:
        for panel, setting in zip(axes, config.settings, strict=True):
            panel.plot(alpha, curve, color=looks.BLACK, linestyle="--", linewidth=0.9, label="certified, mu = 1")
            for variant, color in COLORS.items():
                part = report.where(table, setting=setting, variant=variant)
                points = [row["alpha"] for row in part], [row["misses"] for row in part]
                panel.plot(*points, color=color, marker=".", markersize=3, linewidth=0.7, label=variant)
            panel.set(xlabel="false alarms", ylabel="misses")


def section(results: Results) -> list[report.Block]:
    """Where the curve was beaten, and how near it was come."""
    lines = []
    for (setting, variant), part in report.groups(results.rows, "setting", "variant").items():
        line = {"setting": setting, "worlds": variant, "series": part[0]["draws"], "refreshed": part[0]["refreshed"]}
        line |= {"nearest": min(row["misses"] - row["certified"] for row in part)}
        lines.append(line | {"points below the curve": f"{sum(row['beaten'] for row in part)} of {len(part)}"})
    return [
        "An adversary who knows everything but the noise of the releases, and who uses the best test, must still "
        "miss at least as often as the certified curve says. Two worlds that are exactly the admitted distance apart "
        "attain the curve. With half the noise they fall below it, which shows that the comparison can fail.",
        report.Table(lines, "Likelihood-ratio tests of whole series that claim mu = 1, with 99.9 % confidence."),
        *results.figures("release_curves.png", "Misses against false alarms, with the certified curve",
                         "No test beats the certified curve."),
    ]  # fmt: skip


#: The settings that take seconds to prepare.
SMALL = {"settings": ("one parameter", "adaptive")}
EXPERIMENT = Experiment(
    "fmu_release_curves", Config, rows_of, draw=draw, heading="Releases: no test beats the certified curve",
    section=section, x64=True,
    parts=(Part({"none": SMALL | {"draws": 50_000}, "quick": SMALL, "full": {"draws": 100_000}, "paper": {}}),),
)  # fmt: skip
EXPERIMENT.run_as(__name__)
