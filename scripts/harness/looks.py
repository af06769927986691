"""How each known series is drawn, the same in every figure: label, colour, marker and dashes."""

from typing import NamedTuple


class Look(NamedTuple):
    """How a method is drawn, and what the legend calls it."""

    label: str
    color: str
    marker: str
    dash: str | tuple[int, tuple[float, ...]] = "-"


GREY, BLACK, VERMILION, BLUE = "#7f7f7f", "#000000", "#d55e00", "#0072b2"
SKY, GREEN, PURPLE, ORANGE = "#56b4e9", "#009e73", "#cc79a7", "#e69f00"

LOOKS: dict[str, Look] = {
    # Removal methods.
    "no_removal": Look("no removal", GREY, "x", (0, (1.0, 1.5))),
    "retrain": Look("retrain", BLACK, "s", (0, (4.0, 2.0))),
    "fair_newton": Look("fair Newton", VERMILION, "o"),
    "newton": Look("Newton", BLUE, "^"),
    "influence": Look("influence", SKY, "v"),
    "projective": Look("projective", GREEN, "D"),
    "sharded": Look("sharded", PURPLE, "P"),
    "descent": Look("descent", ORANGE, "X"),
    "gauss_newton": Look("fair Newton, Gauss-Newton", BLUE, "D"),
    "last_layer": Look("fair Newton, last layer", GREEN, "^"),
    "finetune": Look("fine-tuning", SKY, "D"),
    "gradient_ascent": Look("gradient ascent", ORANGE, "P"),
    "scrub": Look("SCRUB-like", PURPLE, "X"),
    "noisy": Look("noise, certified", VERMILION, "P"),
    "noisy_repaired": Look("noise and repair, certified", VERMILION, "*"),
    "fake": Look("noise, fake", GREY, "D"),
    # Bounds on the residual gradient.
    "residual_norm": Look("exact residual", BLACK, "s", (0, (4.0, 2.0))),
    "row_bound": Look("row-wise bound", VERMILION, "o"),
    "gram_bound": Look("Gram bound", ORANGE, "X"),
    "paper_data_dependent": Look("paper, data-dependent", BLUE, "^"),
    "paper_worst_case": Look("paper, worst case", SKY, "v"),
    # Audits.
    "certified_epsilon": Look("certified from the residual", VERMILION, "o"),
    "empirical_epsilon": Look("shown by the audit (lower bound, 95 %)", BLACK, "s"),
    # Robust losses.
    "cross_entropy": Look("cross-entropy", BLACK, "s"),
    "gradient_norm": Look("gradient norm", BLUE, "^"),
    "smoothness": Look("smoothness", GREEN, "D"),
    "randomized_smoothing": Look("randomized smoothing", PURPLE, "P"),
    "adversarial": Look("adversarial", VERMILION, "o"),
    # Sides of the data manifold.
    "on_manifold": Look("on-manifold", GREEN, "D"),
    "off_manifold": Look("off-manifold", VERMILION, "o"),
    "accuracy": Look("accuracy", BLACK, "s"),
    "similarity": Look("1 - LPIPS", PURPLE, "P"),
    # Penalties.
    "equalized_odds": Look("equalized odds", VERMILION, "o"),
    "demographic_parity": Look("demographic parity", BLUE, "^"),
    "equal_opportunity": Look("equal opportunity", GREEN, "D"),
    "individual": Look("individual", PURPLE, "P"),
    # Data sets.
    "compas": Look("COMPAS", VERMILION, "o"),
    "adult": Look("Adult", BLUE, "^"),
    "hsls": Look("HSLS", GREEN, "D"),
    "synthetic": Look("synthetic", GREY, "x"),
    "fashion_mnist": Look("Fashion-MNIST", ORANGE, "^"),
}
"""The look of each known series; within a figure that compares one kind of thing, no two are alike."""


def look(name: str) -> Look:
    """How to draw a method or any other series.

    Args:
        name: A key of `LOOKS`, or another name, which gets a look that depends on the name alone.

    >>> look("fair_newton").color
    '#d55e00'
    """
    if name in LOOKS:
        return LOOKS[name]
    others = [LOOKS[key] for key in ("fair_newton", "newton", "influence", "projective", "sharded", "descent")]
    place = sum(name.encode()) % len(others)
    return others[place]._replace(label=name.replace("_", " "), dash=(0, (5.0, 1.0, 1.0, 1.0)))


#: What a column of rows is called where that is not its name.
TITLES = {
    "dataset": "data set",
    "equalized_odds_mean": "average odds gap",
    "demographic_parity": "demographic parity gap",
    "equal_opportunity": "equal opportunity gap",
    "distance": "distance to retrained",
    "train_rows": "training rows",
    "time_ms": "time [ms]",
    "test_accuracy": "accuracy",
}


def titled(*columns: str, **others: str) -> dict[str, str]:
    """Titles by column: those of `TITLES`, those given by name, or else the name in words.

    >>> titled("dataset", "head_epsilon", distance="distance")
    {'dataset': 'data set', 'head_epsilon': 'head epsilon', 'distance': 'distance'}
    """
    return {column: TITLES.get(column, column.replace("_", " ")) for column in columns} | others
