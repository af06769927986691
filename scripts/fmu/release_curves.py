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
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from scripts.harness import cli, looks, plot, report
from scripts.harness.experiment import Experiment, Results, Row
from scripts.harness.lazy import fmu_jax, jax, jnp

SETTINGS = ("one parameter", "21 columns", "adaptive", "stream")
VARIANTS = ("honest", "admitted", "half noise")
COLORS = {"honest": looks.BLUE, "admitted": looks.GREEN, "half noise": looks.VERMILION}
MU, CHUNK, THRESHOLDS = 1.0, 10_000, 41


@dataclass(frozen=True)
class Config(cli.Common):
    """Compare empirical trade-offs with the certified curve."""

    PRESETS: ClassVar = {"quick": {"draws": 20_000}}

    out: Path = Path("runs/fmu_release_curves")
    draws: cli.Count = 1_000_000
    """Series of each world, rounded up to chunks of 10,000."""
    repeats: cli.Count = 1
    """Seeds, counted from --seed: each draws its own noise."""


class World(NamedTuple):
    """A setting: likelihood ratios (logarithms) of a chunk of series by key and world, and the share refreshed."""

    ratios: Callable[[jax.Array, bool], jax.Array]
    refreshed: float


def plan(config: Config) -> list[Row]:
    """One unit for each setting, variant and seed."""
    return [
        {"setting": setting, "variant": variant, "seed": config.seed + k}
        for setting in SETTINGS
        for variant in VARIANTS
        for k in range(config.repeats)
    ]


def rows_of(config: Config, *, setting: str, variant: str, seed: int) -> list[Row]:
    """Misses against false alarms of one setting."""
    worlds = {"one parameter": single, "stream": perturbed, "21 columns": wide, "adaptive": adaptive}
    world = worlds[setting](variant)
    key = jax.random.fold_in(jax.random.key(seed), 3 * SETTINGS.index(setting) + VARIANTS.index(variant))
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


def noise(variant: str) -> float:
    """Share of the noise that the guarantee asks for."""
    return 0.5 if variant == "half noise" else 1.0


def shifted(exact: jax.Array, admitted: float, shape: jax.Array | None = None) -> jax.Array:
    """Parameters exactly ``admitted`` away from each of ``(..., d)``, in the norm of the shape."""
    off = jnp.ones(exact.shape[-1])
    return exact + admitted * off / jnp.sqrt(off @ (off if shape is None else shape @ off))


def series(unlearned, exact, scale, shape) -> Callable[[jax.Array, bool], jax.Array]:
    """Ratios of releases of fixed models, ``(k, d)`` in either world."""

    @partial(jax.jit, static_argnums=1)
    def ratios(key, world):
        def one(key):
            centre = unlearned if world else exact
            keys = jax.random.split(key, len(exact))
            published = jax.vmap(lambda key, at: fmu_jax.releases.publishing.add_noise(at, key, scale, shape)[0])(
                keys, centre
            )
            return (square(published - exact, shape) - square(published - unlearned, shape)).sum() / (2 * scale**2)

        return jax.lax.map(one, jax.random.split(key, CHUNK), batch_size=1000)

    return ratios


def square(v, shape):
    """``|v|_A^2`` of each vector."""
    return jnp.sum(v * (v if shape is None else v @ shape), axis=-1)


def single(variant: str) -> World:
    """One release of one parameter; honest is half the admitted distance away."""
    admitted, exact = 0.1, jnp.array([[0.3]])
    unlearned = shifted(exact, admitted * (0.5 if variant == "honest" else 1.0))
    return World(series(unlearned, exact, noise(variant) * fmu_jax.releases.scale_for(admitted, mu=MU), None), 0.0)


def wide(variant: str) -> World:
    """A stream of three requests at 21 columns, with refreshes and shaped noise."""
    data = fmu_jax.datasets.synthetic(500, 20, seed=0).train
    objective = fmu_jax.Objective(l2=1e-2, fairness=1.0)
    fitted = fmu_jax.fit(objective, data)
    gone = np.flatnonzero(np.asarray((data.y == 1) & (data.group == 0)))[:6]
    shape = data.x.T @ data.x / 4 + len(data.x) * objective.l2 * jnp.eye(data.x.shape[1])
    state = fmu_jax.stream.start(objective, fitted, data, noise=None, sigma=1.0, delta=1e-5, budget=1.0)
    other = fmu_jax.stream.delete(state, jax.tree.map(lambda leaf: leaf[gone[3:5]], data))
    admitted = 1.1 * float(fmu_jax.stream.distance_to_retrained(other, shape=shape))
    left, unlearned, exact, refreshed = data, [], [], 0
    for row in gone[:3].tolist():
        taken, left = fmu_jax.stream.take(left, [row])
        state = fmu_jax.stream.delete(state, taken)
        if not fmu_jax.stream.distance_to_retrained(state, shape=shape) <= admitted:
            state, refreshed = fmu_jax.stream.refresh(state, left), refreshed + 1
        unlearned.append(state.params)
        exact.append(fmu_jax.fit(objective, left, init=state.params).params)
    exact = jnp.stack(exact)
    unlearned = jnp.stack(unlearned) if variant == "honest" else shifted(exact, admitted, shape)
    scale = noise(variant) * fmu_jax.releases.scale_for(admitted, mu=MU, releases=3)
    return World(series(unlearned, exact, scale, shape), refreshed / 3)


def perturbed(variant: str) -> World:
    """One parameter, 40 rows, noise in training that the adversary knows; refreshed where the distance says so."""
    y = (np.random.default_rng(0).random(40) < 0.35).astype(int)
    data = fmu_jax.make_data(np.ones((40, 1)), y, np.arange(40) % 2)
    objective = fmu_jax.Objective(l2=1e-2)
    gone = jnp.asarray(np.flatnonzero(y)[:4])
    left = data._replace(weight=data.weight.at[gone].set(0))

    def models(b):
        """The unlearned model before any refresh, its distance, and the retrained one, under one perturbation."""
        fitted = fmu_jax.fit(objective, data, noise=b, throw=False)
        state = fmu_jax.stream.start(objective, fitted, data, noise=b, sigma=1.0, delta=1e-5, budget=1.0)
        state = fmu_jax.stream.delete(state, jax.tree.map(lambda leaf: leaf[gone], data))
        exact = fmu_jax.fit(objective, left, noise=b, init=state.params, throw=False).params
        return state.params, fmu_jax.stream.distance_to_retrained(state), exact

    far = jax.vmap(models)(jax.random.normal(jax.random.key(9), (1000, 1)))[1]
    admitted = float(jnp.median(far))
    scale = noise(variant) * fmu_jax.releases.scale_for(admitted, mu=MU)

    @partial(jax.jit, static_argnums=1)
    def ratios(key, world):
        def one(key):
            for_b, for_noise = jax.random.split(key)
            unlearned, distance, exact = models(jax.random.normal(for_b, (1,)))
            unlearned = jnp.where(distance <= admitted, unlearned, exact)
            if variant != "honest":
                unlearned = shifted(exact, admitted)
            published = fmu_jax.releases.publishing.add_noise(unlearned if world else exact, for_noise, scale, None)[0]
            return (square(published - exact, None) - square(published - unlearned, None)) / (2 * scale**2)

        return jax.lax.map(one, jax.random.split(key, CHUNK), batch_size=1000)

    return World(ratios, float((far > admitted).mean()))


def adaptive(variant: str) -> World:
    """Ten releases, two parameters; rows are of six kinds, so that every set of deleted rows is solved beforehand.

    The requester deletes a row of the kind that the last published model fits worst.
    """
    kinds = [(value, label) for value in (-1.0, 0.2, 1.0) for label in (0, 1)]
    copies, length = 14, 10
    x = np.array([[value, 1.0] for value, _ in kinds for _ in range(copies)])
    y = np.array([label for _, label in kinds for _ in range(copies)])
    data = fmu_jax.make_data(x, y, np.arange(len(y)) % 2)
    objective = fmu_jax.Objective(l2=1e-2, fairness=1.0)
    before = fmu_jax.fit(objective, data).params
    sets = np.array(deletions(len(kinds), length))
    number = np.full([length + 1] * len(kinds), -1, np.int32)
    number[tuple(sets.T)] = np.arange(len(sets))

    def models(taken):
        gone = (jnp.arange(copies)[None] < taken[:, None]).ravel()
        removal = fmu_jax.remove(objective, before, data, gone, throw=False)
        exact = fmu_jax.fit(objective, removal.data, init=removal.params, throw=False).params
        return removal.params, fmu_jax.releases.distance_to_retrained(objective, removal), exact

    unlearned, distance, exact = jax.lax.map(models, jnp.asarray(sets), batch_size=64)
    full = sets.sum(axis=1) == length
    admitted = float(np.quantile(np.asarray(distance)[full], 0.5))
    again = distance > admitted
    unlearned = jnp.where(again[:, None], exact, unlearned)
    if variant != "honest":
        unlearned = shifted(exact, admitted)
    scale = noise(variant) * fmu_jax.releases.scale_for(admitted, mu=MU, releases=length)
    place = jnp.asarray((length + 1) ** np.arange(len(kinds))[::-1])
    number, seen = jnp.asarray(number.ravel()), jnp.asarray([[value, 1.0] for value, _ in kinds])
    sign = jnp.asarray([2.0 * label - 1 for _, label in kinds])

    @partial(jax.jit, static_argnums=1)
    def ratios(key, world):
        def one(key):
            def request(carry, key):
                taken, published, ratio = carry
                taken = taken.at[jnp.argmin(sign * (seen @ published))].add(1)
                at = number[taken @ place]
                centre = unlearned[at] if world else exact[at]
                published = fmu_jax.releases.publishing.add_noise(centre, key, scale, None)[0]
                moved = square(published - exact[at], None) - square(published - unlearned[at], None)
                return (taken, published, ratio + moved / (2 * scale**2)), None

            start = (jnp.zeros(len(kinds), place.dtype), before, jnp.zeros(()))
            return jax.lax.scan(request, start, jax.random.split(key, length))[0][2]

        return jax.lax.map(one, jax.random.split(key, CHUNK), batch_size=1000)

    return World(ratios, float(np.asarray(again)[full].mean()))


def deletions(kinds: int, most: int) -> list[tuple[int, ...]]:
    """How many rows of each kind can be gone, ``most`` at most together."""
    if not kinds:
        return [()]
    return [(k, *rest) for k in range(most + 1) for rest in deletions(kinds - 1, most - k)]


def draw(config: Config, table: list[Row]) -> None:
    """Draw misses against false alarms, a panel a setting, with the certified curve."""
    figure, axes = plot.figure(1, len(SETTINGS), titles=list(SETTINGS), width=2.9, height=2.9)
    alpha = np.linspace(1e-4, 1 - 1e-4, 400)
    curve = np.asarray(fmu_jax.releases.trade_off(MU, alpha))
    for panel, setting in zip(np.ravel(axes), SETTINGS, strict=True):
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
        *results.figures("release_curves.png", "Misses against false alarms in four settings, with the certified curve",
                         "No test beats the certified curve."),
    ]  # fmt: skip


EXPERIMENT = Experiment(
    "fmu_release_curves", Config, plan, rows_of, draw=draw, heading="Releases: no test beats the certified curve",
    section=section, x64=True,
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(EXPERIMENT.run())
