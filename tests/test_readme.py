"""README says the truth: its example runs, its deviations are those of the docstrings, its tests and scripts exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def deviations(text):
    return {int(number) for number in re.findall(r"\bD(\d+)\b", text)}


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_examples_run(code, capsys):
    assert len(code.splitlines()) <= 20
    exec(compile(code, "README.md", "exec"), {})
    assert "epsilon" in capsys.readouterr().out


def test_deviations_are_the_same_in_readme_docstrings_and_tests():
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "fmu_jax").rglob("*.py"))
    pinned = (ROOT / "tests/fmu/test_deviations.py").read_text(encoding="utf-8")
    names = "".join(re.findall(r"def test_((?:d\d+_)+)", pinned)).upper().replace("_", " ")
    table = deviations("".join(re.findall(r"^\| (D\d+) \|", README, re.MULTILINE)).replace("D", " D"))
    assert table == set(range(1, len(table) + 1))
    assert table == deviations(sources)
    assert table == deviations(names)


def test_commands_and_files_exist():
    for module in re.findall(r"python -m ([a-z_.]+)", README):
        assert (ROOT / (module.replace(".", "/") + ".py")).exists(), module
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE), target
    for path in re.findall(r"\((benchmarks/results/[^)]+)\)", README):
        assert (ROOT / path).exists(), path
