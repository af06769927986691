"""Questions 7 to 10 that `benchmarks/README.md` fixes beforehand: on what gradients draw, and on trained alignment.

Rows are those of models' drawings (`drawing.measures`, with ``loss``, ``strength`` and ``task``), or of models beside
ones that were trained to align. Answers are rows as in `questions`; ``beside`` is what ``estimate`` must exceed, by
more than two standard errors of the difference.
"""

import math
from collections.abc import Sequence

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
    rows = {row["loss"]: row for row in table if row["task"] == task}
    found = []
    for loss in [loss for loss in rows if loss != BASELINE]:
        row, other = rows[loss], rows[BASELINE if question == 7 else loss]
        both = ((row, column), (other, start))
        if any(at[name] is None for at, name in both):
            return []
        errors = [share_error(at[name], images) if question == 7 else at[f"{name}_error"] for at, name in both]
        verdict = SHOWN if exceeds(row[column], other[start], *errors) else NOT_SHOWN
        known = {"question": question, "loss": loss, "strength": row["strength"], "estimate": row[column]}
        about = share_interval(row[column], images) if question == 7 else _around(row[column], errors[0])
        known |= dict(zip(("low", "high"), about, strict=True))
        found.append(known | {"beside": other[start], "verdict": verdict})
    return found


def aligned(table: Sequence[Row], *, images: int, tolerance: float = 0.02) -> list[Row]:
    """Question 10: accuracy under attack of each model that was trained to align, beside the undefended model's.

    Args:
      table: Rows with ``test_accuracy``, ``ensemble`` (accuracy under attack) and ``cosine`` of gradient and score.
      images: Number of images that were attacked.
      tolerance: How far clean accuracy may lie below the undefended model's; further, the verdict is "partly" at most.

    Returns:
      A row for each of these models.
    """
    (base,) = (row for row in table if row["loss"] == BASELINE)
    found = []
    for row in table:
        if row["loss"] == ALIGNED:
            errors = (share_error(share, images) for share in (row["ensemble"], base["ensemble"]))
            accurate = row["test_accuracy"] > base["test_accuracy"] - tolerance
            known = {"question": 10, "loss": ALIGNED, "strength": row["strength"], "estimate": row["ensemble"]}
            known |= {"beside": base["ensemble"], "detail": f"cosine {row['cosine']:.3f}", "verdict": NOT_SHOWN}
            if exceeds(row["ensemble"], base["ensemble"], *errors):
                known["verdict"] = SHOWN if accurate else PARTLY
            found.append(known)
    return found


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

    >>> [round(float(end), 3) for end in share_interval(1.0, 100)]
    [0.964, 1.0]
    """
    lower, hits = binomial.lower_bounds(count, alpha / 2), round(share * count)
    return float(lower[hits]), float(1 - lower[count - hits])


def _around(mean: float, error: float) -> tuple[float, float]:
    return mean - 1.96 * error, mean + 1.96 * error


def share_error(share: float, count: int) -> float:
    """Standard error of a share of ``count`` images.

    >>> share_error(0.5, 100)
    0.05
    """
    return math.sqrt(share * (1 - share) / count)
