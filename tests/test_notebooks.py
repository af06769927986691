"""The notebooks run from top to bottom and print what is stored in them."""

import contextlib
import io
import json
import re
from pathlib import Path

import pytest

from tests.test_readme import numbers, words

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "scripts" / "notebooks").glob("*.ipynb"))
#: How far numbers may be from the stored ones: a training in float32 ends elsewhere on another machine.
TOLERANCES = {"unlearning_with_a_release": 0.02, "gradients_of_a_robust_model": 0.3}


def cells(path):
    """Code of each cell, and the text that is stored below it."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            assert {output["output_type"] for output in cell["outputs"]} <= {"stream"}
            yield "".join(cell["source"]), "".join(line for output in cell["outputs"] for line in output["text"])


def test_there_are_two_and_each_installs_what_it_needs_and_opens_elsewhere():
    assert {path.stem for path in NOTEBOOKS} == set(TOLERANCES)
    for path in NOTEBOOKS:
        content = json.loads(path.read_text(encoding="utf-8"))
        assert f"blob/main/scripts/notebooks/{path.name})" in "".join(content["cells"][0]["source"])
        first, _ = next(cells(path))
        assert '"pip", "install"' in first
        # The link and the installation name one repository, or its placeholder.
        title = "".join(content["cells"][0]["source"])
        linked = re.search(r"colab\.research\.google\.com/github/([^/]+/[^/]+)/blob", title)
        assert f'"git+https://github.com/{linked[1]}"' in first


@pytest.mark.slow
@pytest.mark.usefixtures("users_numerics", "optimised")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_prints_what_is_stored_in_it(path):
    names = {"__name__": "notebook"}
    for number, (code, stored) in enumerate(cells(path)):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, f"{path.name}, cell {number}", "exec"), names)
        assert words(printed.getvalue()) == words(stored), number
        assert numbers(printed.getvalue()) == pytest.approx(numbers(stored), rel=TOLERANCES[path.stem]), number
