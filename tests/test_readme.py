"""README says the truth: its example runs, its deviations are those of the docstrings, its tests and scripts exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def deviations(text, letter):
    return {int(number) for number in re.findall(rf"\b{letter}(\d+)\b", text)}


def python_files(folder):
    return "".join(path.read_text(encoding="utf-8") for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_examples_run(code, capsys):
    assert len(code.splitlines()) <= 20
    exec(compile(code, "README.md", "exec"), {})
    assert re.search("epsilon|accuracy", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("letter", "package", "tests"), [("D", "fmu_jax", "tests/fmu"), ("P", "pags_jax", "tests/pags")]
)
def test_deviations_are_the_same_in_readme_docstrings_and_tests(letter, package, tests):
    table = deviations(" ".join(re.findall(rf"^\| ({letter}\d+) \|", README, re.MULTILINE)), letter)
    names = " ".join(re.findall(rf"def test_((?:{letter.lower()}\d+_)+)", python_files(tests)))
    assert table == set(range(1, len(table) + 1)) != set()
    assert table == deviations(python_files(package), letter)
    assert table == deviations(names.upper().replace("_", " "), letter)


def test_commands_and_files_exist():
    for module in re.findall(r"python -m ([a-z_.]+)", README):
        assert (ROOT / (module.replace(".", "/") + ".py")).exists(), module
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE), target
    for path in re.findall(r"\((benchmarks/results/[^)]+)\)", README):
        assert (ROOT / path).exists(), path
