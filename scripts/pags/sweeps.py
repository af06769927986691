"""Finished runs on a sweep, or their published rows, as other experiments read them, and where they look at it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.harness import cli, names, rows, store
from scripts.harness.experiment import Row
from scripts.harness.lazy import pags_jax

BASELINE, SMOOTHED = "cross_entropy", "randomized_smoothing"
"""The loss that has no strength, and the one whose strength is a noise level."""


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
        place = {"eps_l2": self.eps, "target": self.target, "sigma_pm1": self.sigma_pm1}
        return pags_jax.sweeps.join(robust, aligned, **place)


SHOWN = PlaceConfig()
"""Where reports look at a sweep."""


def check_same_models(robust: Sequence[Row], aligned: Sequence[Row]) -> None:
    """Raises ValueError if the two runs say that they measured different models."""
    digests = {row["config.trained_sha256"] for row in (*robust, *aligned) if row.get("config.trained_sha256")}
    if len(digests) > 1:
        raise ValueError("--robustness and --alignment are of different trained models; measure the same --trained")


def label_of(row: Row) -> str:
    """A model's name in figures and tables."""
    return "undefended" if row["loss"] == BASELINE else f"{row['loss'].replace('_', ' ')} {row['strength']:g}"


def read(path: Path, flag: str, script: str) -> list[Row]:
    """The rows of a finished run folder, or of a published ``.csv.gz``, of one script.

    Args:
      path: The folder, or the file.
      flag: The flag that named it, for errors.
      script: The script whose rows they must be, such as "pags_robustness".

    Raises:
      ValueError: If there is no finished run, it is damaged, or its rows are of another script.
    """
    command = f"python -m scripts.{script.replace('_', '.', 1)}"
    try:
        table = rows.read_published(path) if path.is_file() else store.read_rows(path)
    except FileNotFoundError as error:
        raise ValueError(f"{flag}: {error}; run {command} first") from None
    for row in table:
        found = row.get("config.experiment", "another kind of run").removeprefix("scripts.")  # As it was spelled once.
        if found != script:
            raise ValueError(f"{flag}: {path} holds rows of {found}, not of {script}")
    if not table:
        raise ValueError(f"{flag}: {path} holds no rows; run {command} again")
    return table
