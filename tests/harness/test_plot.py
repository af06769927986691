"""Figures: the same look for a method everywhere, medians and bands, no global state, the same bytes."""

import math
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

from scripts.harness import looks, plot

METHODS = ("no_removal", "retrain", "fair_newton", "newton", "influence", "projective", "sharded", "descent")


def table() -> list[dict]:
    return [
        {"method": method, "share": share, "gap": share * (k + 1) + seed, "seed": seed}
        for k, method in enumerate(METHODS)
        for share in (0.2, 0.01)
        for seed in range(3)
    ]


def test_methods_are_told_apart_with_and_without_colour() -> None:
    drawn = [plot.look(method) for method in METHODS]
    assert len({look.color for look in drawn}) == len({look.marker for look in drawn}) == len(METHODS)
    assert plot.look("another_one") == plot.look("another_one")
    assert plot.look("another_one").label == "another one"


def test_a_look_of_an_unknown_colour_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ValueError, match=r"looks.toml: unknown color 'red' of mine; known: grey, .*, orange$"):
        looks.read_look("mine", label="mine", color="red", marker="o")


def test_lines_are_medians_in_a_fixed_order_with_a_band() -> None:
    _, axes = plot.figure()
    plot.lines(axes[0, 0], table()[::-1], x="share", y="gap")
    drawn = axes[0, 0].get_lines()
    assert [line.get_label() for line in drawn] == [plot.look(method).label for method in METHODS]
    np.testing.assert_allclose(drawn[2].get_xdata(), [0.01, 0.2])
    np.testing.assert_allclose(drawn[2].get_ydata(), [1.03, 1.6])
    band = axes[0, 0].collections[2].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == pytest.approx((0.03, 2.6))
    assert axes[0, 0].get_xlabel() == "share"


def test_bands_span_smallest_to_largest() -> None:
    _, axes = plot.figure()
    plot.median_line(axes[0, 0], [0.0, 1.0], np.arange(5.0)[:, None] + np.zeros(2), "newton")
    vertices = axes[0, 0].collections[0].get_paths()[0].vertices
    assert (vertices[:, 1].min(), vertices[:, 1].max()) == (0.0, 4.0)


def test_missing_values_are_gaps_without_a_warning() -> None:
    _, axes = plot.figure()
    values = [[1.0, math.nan, math.inf], [3.0, math.nan, 2.0]]
    plot.median_line(axes[0, 0], [0, 1, 2], values, "newton")
    np.testing.assert_array_equal(axes[0, 0].get_lines()[0].get_ydata(), [2.0, math.nan, 2.0])
    rows = [{"method": "newton", "share": 0.1, "gap": None}, {"method": "newton", "share": 0.2, "gap": 1.0}]
    plot.lines(axes[0, 0], rows, x="share", y="gap")
    np.testing.assert_array_equal(axes[0, 0].get_lines()[1].get_xdata(), [0.2])


def test_points_stand_side_by_side_with_their_range() -> None:
    _, axes = plot.figure()
    data = [{"method": m, "kind": k, "gap": g} for m in ("newton", "retrain") for k in "ab" for g in (1.0, 2.0, 4.0)]
    plot.points(
        axes[0, 0], [*data, {"method": "newton", "kind": "a", "gap": None}], x="kind", y="gap", order=["b", "a"]
    )
    assert [text.get_text() for text in axes[0, 0].get_xticklabels()] == ["b", "a"]
    retrain, newton = axes[0, 0].containers
    np.testing.assert_array_equal(newton[0].get_ydata(), [2.0, 2.0])
    assert np.all(retrain[0].get_xdata() < newton[0].get_xdata())
    assert newton[2][0].get_segments()[0][:, 1].tolist() == [1.0, 4.0]


def test_paths_join_medians_in_order() -> None:
    _, axes = plot.figure()
    data = [
        {"method": "retrain", "weight": w, "gap": 1 / w + s, "accuracy": w} for w in (4.0, 1.0, 2.0) for s in (-1, 0, 1)
    ]
    plot.paths(axes[0, 0], [*data, {"method": "retrain", "weight": 9}], x="gap", y="accuracy", along="weight")
    line = axes[0, 0].get_lines()[0]
    np.testing.assert_allclose(line.get_xdata(), [1.0, 0.5, 0.25])
    np.testing.assert_allclose(line.get_ydata(), [1.0, 2.0, 4.0])


def test_shapes_that_do_not_fit_are_refused() -> None:
    _, axes = plot.figure()
    with pytest.raises(ValueError, match=r"\(repeats, 2\) for 2 positions, got \(1, 3\)"):
        plot.median_line(axes[0, 0], [0, 1], [[1.0, 2.0, 3.0]], "newton")


def draw(path: Path) -> Path:
    made, axes = plot.figure(1, 2, titles=["left", "right"])
    for panel in axes.flat:
        plot.lines(panel, table(), x="share", y="gap")
    plot.draw_legend(made)
    assert len(made.legends[0].get_texts()) == len(METHODS)
    return plot.save(made, path)


def test_the_same_figure_is_the_same_file_and_settings_stay(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    first, second = (draw(tmp_path / name).read_bytes() for name in ("a.png", "b.png"))
    assert first == second
    assert first.startswith(b"\x89PNG")
    assert dict(mpl.rcParams) == before
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "b.png"}
    made, _ = plot.figure()
    with pytest.raises(ValueError, match=r"saved as .png, got 'a.pdf'"):
        plot.save(made, tmp_path / "a.pdf")


def test_pyplot_is_never_imported() -> None:
    code = "import sys; from scripts.harness import plot; plot.figure(); assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)
