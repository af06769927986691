"""Does any test between the two worlds beat the certified trade-off curve of releases?

    python -m scripts.fmu.release_curves --out runs/release_curves        # 10^6 series a world

Each setting publishes a series that claims ``mu`` = 1, many times in either world, and tests by the likelihood ratio,
which is the best that an adversary can do who knows everything but the noise of the releases, the perturbation of
training included:

- ``one parameter``: a single release;
- ``21 columns``: a stream of three requests with refreshes, noise shaped by what both worlds share;
- ``adaptive``: ten releases; the requester picks each next row by the last published model, and the model is solved
  anew where its certified distance exceeds the admitted one;
- ``stream``: one parameter, 40 rows, four deleted; training is perturbed, so that in some draws a refresh starts and in
  others not (the counterexample of ``tests/fmu/test_assumption.py``, published as releases).

``honest`` is the mechanism; ``admitted`` replaces unlearned models by ones exactly the admitted distance away, the
worst that is covered, where the curve must be attained; ``half noise`` does so with half the noise, and must beat the
curve, or this experiment could not fail. Rows: misses at each share of false alarms, with bounds that hold for all of
them at 99.9 %; ``beaten`` where even the bounds lie below the curve.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from scripts.fmu.release_worlds import CHUNK, MU, SETTINGS
from scripts.harness import cli, looks, plot, report
from scripts.harness.experiment import Experiment, Part, Results, Row
from scripts.harness.lazy import fmu_jax, jax

VARIANTS = ("honest", "admitted", "half noise")
COLORS = {"honest": looks.BLUE, "admitted": looks.GREEN, "half noise": looks.VERMILION}
THRESHOLDS = 41
Setting = Literal["one parameter", "21 columns", "adaptive", "stream"]


@dataclass(frozen=True)
class Config(cli.Common):
    """Compare empirical trade-offs with the certified curve."""

    PRESETS: ClassVar = {"quick": {"draws": 20_000}}

    out: Path = Path("runs/fmu_release_curves")
    settings: tuple[Setting, ...] = ("one parameter", "21 columns", "adaptive", "stream")
    """What is published."""
    draws: cli.Count = 1_000_000
    """Series of each world, rounded up to chunks of 10,000."""
    repeats: cli.Count = 1
    """Seeds, counted from --seed: each draws its own noise."""


def plan(config: Config) -> list[Row]:
    """One unit for each setting, variant and seed."""
    return [
        {"setting": setting, "variant": variant, "seed": config.seed + k}
        for setting in config.settings
        for variant in VARIANTS
        for k in range(config.repeats)
    ]


def rows_of(config: Config, *, setting: str, variant: str, seed: int) -> list[Row]:
    """Misses against false alarms of one setting."""
    world = SETTINGS[setting](variant)
    key = jax.random.fold_in(jax.random.key(seed), 3 * list(SETTINGS).index(setting) + VARIANTS.index(variant))
    for_pilot, for_draws = jax.random.split(key)
    # Thresholds come from draws of their own.
    pilot = np.asarray(world.ratios(for_pilot, False))
    cuts = np.quantile(pilot, np.linspace(0.001, 0.999, THRESHOLDS))
    chunks = -(-config.draws // CHUNK)
    count = chunks * CHUNK
    above = np.zeros((2, THRESHOLDS), int)
    for unlearned in (False, True):
        for part in jax.random.split(jax.random.fold_in(for_draws, unlearned), chunks):
            ordered = np.sort(np.asarray(world.ratios(part, unlearned)))
            above[int(unlearned)] += CHUNK - np.searchsorted(ordered, cuts, side="right")
    false, missed = above[0], count - above[1]
    confidence = 1 - 1e-3 / THRESHOLDS
    # The curve falls, so at the largest plausible share of false alarms it allows the fewest misses.
    most_false, most_missed = (
        np.asarray(fmu_jax.audit.binomial.clopper_pearson(k, count, confidence=confidence)[1]) for k in (false, missed)
    )
    allowed = np.asarray(fmu_jax.releases.trade_off(MU, np.clip(most_false, 1e-300, 1 - 1e-16)))
    curve = np.asarray(fmu_jax.releases.trade_off(MU, np.clip(false / count, 1e-12, 1 - 1e-12)))
    return [
        {
            "draws": count, "alpha": false[i] / count, "misses": missed[i] / count, "misses_at_most": most_missed[i],
            "certified": curve[i], "beaten": bool(most_missed[i] < allowed[i]), "refreshed": world.refreshed,
        }
        for i in range(THRESHOLDS)
    ]  # fmt: skip


def draw(config: Config, table: list[Row]) -> None:
    """Draw misses against false alarms, a panel a setting, with the certified curve."""
    figure, axes = plot.figure(1, len(config.settings), titles=list(config.settings), width=2.9, height=2.9)
    alpha = np.linspace(1e-4, 1 - 1e-4, 400)
    curve = np.asarray(fmu_jax.releases.trade_off(MU, alpha))
    for panel, setting in zip(np.ravel(axes), config.settings, strict=True):
        panel.plot(alpha, curve, color=looks.BLACK, linestyle="--", linewidth=0.9, label=f"certified, mu = {MU:g}")
        for variant in VARIANTS:
            part = report.where(table, setting=setting, variant=variant)
            points = [row["alpha"] for row in part], [row["misses"] for row in part]
            panel.plot(*points, color=COLORS[variant], marker=".", markersize=3, linewidth=0.7, label=variant)
        panel.set(xlabel="false alarms", ylabel="misses")
    plot.legend(figure, columns=4)
    plot.save(figure, config.out / "release_curves.png")


def section(results: Results) -> list[report.Block]:
    """Where the curve was beaten, and how near it was come."""
    parts = [
        (setting, variant, report.where(results.rows, setting=setting, variant=variant))
        for setting in SETTINGS
        for variant in VARIANTS
    ]
    lines = [
        {
            "setting": setting, "worlds": variant, "series": part[0]["draws"], "refreshed": part[0]["refreshed"],
            "nearest": min(row["misses"] - row["certified"] for row in part),
            "points below the curve": f"{sum(row['beaten'] for row in part)} of {len(part)}",
        }
        for setting, variant, part in parts
        if part
    ]  # fmt: skip
    return [
        "An adversary who knows everything but the noise of the releases, and tests with the best statistic there is, "
        "must miss at least what the certified curve says. Worlds exactly the admitted distance apart attain it; with "
        "half the noise they fall below it, or nothing could.",
        report.Table(lines, "Likelihood-ratio tests of whole series that claim mu = 1, with 99.9 % confidence."),
        *results.figures("release_curves.png", "Misses against false alarms, with the certified curve",
                         "No test beats the certified curve."),
    ]  # fmt: skip


#: The settings that take seconds to prepare.
SMALL = {"settings": ("one parameter", "adaptive")}
EXPERIMENT = Experiment(
    "fmu_release_curves", Config, plan, rows_of, draw=draw, heading="Releases: no test beats the certified curve",
    section=section, x64=True,
    parts=(Part({"none": SMALL | {"draws": 50_000}, "quick": SMALL, "full": {"draws": 100_000}, "paper": {}}),),
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(EXPERIMENT.run())
