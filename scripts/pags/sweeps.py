"""A sweep as experiments look at it: where, finished runs or published rows on it, and what figures are drawn with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import NullFormatter

from scripts.harness import cli, names, plot, store
from scripts.harness.experiment import Row
from scripts.harness.lazy import pags_jax

BASELINE, SMOOTHED, DENOISER = "cross_entropy", "randomized_smoothing", "denoiser"
"""The loss without a strength, the one whose strength is a noise level, and what the denoiser is called among them."""


@dataclass(frozen=True)
class PlaceConfig(cli.Common):
    """Flags that say where a sweep is looked at."""

    eps: cli.Positive = 2.637
    """Length of the steps on and off the manifold; the nearest measured length is used. The paper shows 2.637."""
    target: names.Target = "logit"
    """Gradient that is compared with its score. That of the label's logit is compared with the conditional score, as in
    the paper's figure 3. That of logit_sum cannot align, because a softmax loss has no gradient along the sum of the
    last layer's weights."""
    sigma_pm1: cli.Positive = 0.5
    """Noise level of the score; the nearest measured level is used. The paper uses 0.5."""
    tolerance: cli.Probability = 0.02
    """How far a model's accuracy may lie below the sweep's best before its strength is called excessive."""

    @property
    def place(self) -> pags_jax.questions.Place:
        """These flags, as `pags_jax.questions` takes them."""
        return pags_jax.questions.Place(self.eps, self.target, self.sigma_pm1, self.tolerance)

    def joined(self, robust: Sequence[Row], aligned: Sequence[Row]) -> list[Row]:
        """One row for each model that both runs measured at this place, see `pags_jax.sweeps.join`."""
        check_same_models(robust, aligned)
        return self.place.join(robust, aligned)


SHOWN = PlaceConfig()
"""Where reports look at a sweep."""


def check_same_models(robust: Sequence[Row], aligned: Sequence[Row]) -> None:
    """Raises ValueError if the two runs say that they measured different models."""
    digests = {row["config.trained_sha256"] for row in (*robust, *aligned) if row.get("config.trained_sha256")}
    if len(digests) > 1:
        raise ValueError("--robustness and --alignment are of different trained models; measure the same --trained")


def label_of(row: Row) -> str:
    """A model's name in figures and tables."""
    without_strength = {BASELINE: "undefended", DENOISER: DENOISER}
    return without_strength.get(row["loss"]) or f"{row['loss'].replace('_', ' ')} {row['strength']:g}"


def read(path: Path, run: str) -> list[Row]:
    """The rows of a finished run folder, or of a published ``.csv.gz``, of the script after which a flag is called.

    Raises:
      ValueError: If there is no finished run, it is damaged, or its rows are of another script.
    """
    script = "pags_train" if run == "trained" else f"pags_{run}"
    again = f"python -m scripts.{script.replace('_', '.', 1)}"
    try:
        table = store.read_rows(path)
    except FileNotFoundError as error:
        raise ValueError(f"--{run}: {error}; run {again} first") from None
    for row in table:
        found = row.get("config.experiment", "another kind of run").removeprefix("scripts.")  # As it was spelled once.
        if found != script:
            raise ValueError(f"--{run}: {path} holds rows of {found}, not of {script}")
    if not table:
        raise ValueError(f"--{run}: {path} holds no rows; run {again} again")
    return table


#: Colours of the regimes' shades.
SHADES = {"weak": "#f6ecd2", "aligned": "#d5e6f3", "excessive": "#e4e4e8"}


def shade(panel: Any, found: Any) -> None:
    """Colour each strength by its regime, half-way (by ratio) to its neighbours; None where nothing was measured."""
    if found is None:
        return
    pairs = zip(found.strengths, found.strengths[1:], strict=False)
    edges = (found.strengths[0], *((a * b) ** 0.5 if a > 0 else b / 2 for a, b in pairs), found.strengths[-1])
    for k, label in enumerate(found.labels):
        if label is not None:
            panel.axvspan(edges[k], edges[k + 1], color=SHADES[label], linewidth=0, label=label)


def median(panel: Any, table: Sequence[Row], loss: str, column: str, name: str, least: float = -1.0) -> None:
    """Draw a loss's median over seeds at each strength above ``least``, on a logarithmic axis that may also hold 0."""
    strengths, (values,) = pags_jax.sweeps.curves(table, loss, column)
    strengths, values = strengths[strengths > least], values[strengths > least]
    plot.median_line(panel, strengths, values.T, name)
    positive = strengths[strengths > 0]
    if len(positive) == len(strengths):
        panel.set_xscale("log")
    else:  # The undefended model, at 0; the axis is linear up to a power of ten, as ticks below one run into that at 0.
        panel.set_xscale("symlog", linthresh=10 ** np.ceil(np.log10(positive.min(initial=1.0))), linscale=0.5)
    panel.xaxis.set_minor_formatter(NullFormatter())  # On an axis of one decade they run into each other.
