"""How each known series is drawn, the same in every figure: label, colour, marker and dashes."""

import tomllib
from pathlib import Path
from typing import NamedTuple


class Look(NamedTuple):
    """How a method is drawn, and what the legend calls it."""

    label: str
    color: str
    marker: str
    dash: str | tuple[int, tuple[float, ...]] = "-"


GREY, BLACK, VERMILION, BLUE = "#7f7f7f", "#000000", "#d55e00", "#0072b2"
SKY, GREEN, PURPLE, ORANGE = "#56b4e9", "#009e73", "#cc79a7", "#e69f00"
COLORS = {"grey": GREY, "black": BLACK, "vermilion": VERMILION, "blue": BLUE, "sky": SKY, "green": GREEN}
COLORS |= {"purple": PURPLE, "orange": ORANGE}


def read_look(name: str, label: str, color: str, marker: str, dash: list[float] | None = None) -> Look:
    """The look that an entry of `looks.toml` describes; an unknown colour is an error."""
    if color not in COLORS:
        raise ValueError(f"looks.toml: unknown color {color!r} of {name}; known: {', '.join(COLORS)}")
    return Look(label, COLORS[color], marker, "-" if dash is None else (0, tuple(dash)))


LOOKS = {
    name: read_look(name, **row)
    for name, row in tomllib.loads(Path(__file__).with_name("looks.toml").read_text(encoding="utf-8")).items()
}
"""The look of each known series, in the order in which they are drawn; `looks.toml` has them."""


def look(name: str) -> Look:
    """How to draw a method or any other series; names that `LOOKS` lacks get a look that depends on the name alone.

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
