"""Questions 7 to 10 that `benchmarks/README.md` fixes beforehand: on what gradients draw, and on trained alignment.

Rows are those of models' drawings (`drawing.measures`, with ``loss``, ``strength`` and ``task``), or of models beside
ones that were trained to align. Answers are rows as in `questions`; ``beside`` is what ``estimate`` must exceed, by
more than two standard errors of the difference.

A model may have a row for each of several seeds. As in `questions`, numbers are means over seeds, and errors are over
images: all seeds drew from the same ones, so that the error of their mean is at most the mean of their errors.
"""

import math
from collections.abc import Sequence

import numpy as np

from pags_jax import binomial
from pags_jax.questions import NOT_SHOWN, PARTLY, SHOWN
from pags_jax.sweeps import BASELINE, Row

TASKS = {
    7: ("counterfactual", "judged", "judged"),
    8: ("denoising", "psnr_result", "psnr_start"),
    9: ("in-painting", "psnr_result", "psnr_start"),
}
"""Task of each question, the column that it asks about, and the column to compare it with."""
ALIGNED = "score_alignment"
"""What the loss is called that trains gradients to look like scores."""


def drawn(table: Sequence[Row], question: int, *, images: int) -> list[Row]:
    """Questions 7 to 9: a row for each robust model, 7 beside the undefended model, 8 and 9 beside its own start.

    Args:
      table: Rows of the undefended and of robust models.
      question: Number of the question.
      images: Number of images of each task.

    Returns:
      The rows; none where a model has no such number, as without a judge. ``low`` and ``high`` are a 95 % interval of
      ``estimate``: Clopper and Pearson's of a share, and 1.96 standard errors on either side of a mean.
    """
    task, column, start = TASKS[question]
    table = [row for row in table if row["task"] == task]
    base, found = [row for row in table if row["loss"] == BASELINE], []
    for (loss, strength), rows in _robust(table).items():
        both = ((rows, column), (base if question == 7 else rows, start))
        if any(not part or any(row[name] is None for row in part) for part, name in both):
            return []
        estimate, beside = (_mean(part, name) for part, name in both)
        if question == 7:
            errors = [share_error(share, images) for share in (estimate, beside)]
        else:
            errors = [_mean(part, f"{name}_error") for part, name in both]
        known = {"question": question, "loss": loss, "strength": strength, "estimate": estimate}
        about = share_interval(estimate, images) if question == 7 else _around(estimate, errors[0])
        known |= dict(zip(("low", "high"), about, strict=True))
        verdict = SHOWN if exceeds(estimate, beside, *errors) else NOT_SHOWN
        found.append(known | {"beside": beside, "verdict": verdict})
    return found


def aligned(table: Sequence[Row], *, images: int, tolerance: float = 0.02) -> list[Row]:
    """Question 10: accuracy under attack of each model that was trained to align, beside the undefended model's.

    Args:
      table: Rows with ``test_accuracy``, ``ensemble`` (accuracy under attack) and ``cosine`` of gradient and score.
      images: Number of images that were attacked.
      tolerance: How far clean accuracy may lie below the undefended model's; further, the verdict is "partly" at most.

    Returns:
      A row for each of these models.

    Raises:
      ValueError: No row of the undefended model.
    """
    base, found = [row for row in table if row["loss"] == BASELINE], []
    if not base:
        raise ValueError(f"question 10 compares with the undefended model, and no row is of {BASELINE!r}")
    attacked, clean = _mean(base, "ensemble"), _mean(base, "test_accuracy")
    for (loss, strength), rows in _robust(table).items():
        if loss == ALIGNED:
            estimate = _mean(rows, "ensemble")
            errors = (share_error(share, images) for share in (estimate, attacked))
            known = {"question": 10, "loss": ALIGNED, "strength": strength, "estimate": estimate, "beside": attacked}
            known |= {"detail": f"cosine {_mean(rows, 'cosine'):.3f}", "verdict": NOT_SHOWN}
            if exceeds(estimate, attacked, *errors):
                known["verdict"] = SHOWN if _mean(rows, "test_accuracy") > clean - tolerance else PARTLY
            found.append(known)
    return found


def _robust(table: Sequence[Row]) -> dict[tuple[str, float], list[Row]]:
    """The rows of each loss and strength but the undefended model's, one for each seed."""
    found: dict[tuple[str, float], list[Row]] = {}
    for row in table:
        if row["loss"] != BASELINE:
            found.setdefault((row["loss"], row["strength"]), []).append(row)
    return found


def _mean(rows: Sequence[Row], column: str) -> float:
    return float(np.mean([row[column] for row in rows]))


def exceeds(estimate: float, beside: float, *errors: float) -> bool:
    """Whether a number is above another by more than two standard errors of their difference.

    Args:
      estimate: The number.
      beside: The other.
      errors: The standard error of each.

    >>> exceeds(13.4, 13.0, 0.1, 0.1), exceeds(13.2, 13.0, 0.1, 0.1)
    (True, False)
    """
    return estimate - beside > 2 * math.hypot(*errors)


def share_interval(share: float, count: int, alpha: float = 0.05) -> tuple[float, float]:
    """Clopper and Pearson's interval of a share of ``count`` images, at ``1 - alpha``.

    Of a mean over seeds, which is no whole number of images, the wider one of both neighbours on either side.

    >>> [round(float(end), 3) for end in share_interval(1.0, 100)]
    [0.964, 1.0]
    """
    lower, rounding = binomial.lower_bounds(count, alpha / 2), 1e-6  # Of shares in float32.
    least, most = math.floor((share + rounding) * count), math.ceil((share - rounding) * count)
    return float(lower[least]), float(1 - lower[count - most])


def _around(mean: float, error: float) -> tuple[float, float]:
    return mean - 1.96 * error, mean + 1.96 * error


def share_error(share: float, count: int) -> float:
    """Standard error of a share of ``count`` images.

    >>> share_error(0.5, 100)
    0.05
    """
    return math.sqrt(share * (1 - share) / count)
