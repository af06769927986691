"""The READMEs say the truth: examples run and print what is shown, deviations have tests, links and commands exist."""

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from fmu_jax.deletion.command import main as fmu_delete
from tests.deletion import tables

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "fmu_jax/README.md", "pags_jax/README.md", "scripts/README.md", "benchmarks/README.md")
PAGES = (*PAGES, "CONTRIBUTING.md", "CHANGELOG.md")
TEXTS = {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
#: Python examples, each with the block of output that follows it, if one does.
EXAMPLE = re.compile(r"```python\n(.*?)```(?:\n\n```\n(.*?)```)?", re.DOTALL)


def deviations(text, letter):
    return {int(number) for number in re.findall(rf"\b{letter}(\d+)\b", text)}


def python_files(folder):
    return "".join(path.read_text(encoding="utf-8") for path in (ROOT / folder).rglob("*.py"))


def anchors(text):
    """What a link into a page may name: its headings, as GitHub spells them."""
    heads = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^a-z0-9_ -]", "", head.lower()).replace(" ", "-") for head in heads}


def test_front_page_is_short():
    assert len(TEXTS["README.md"].splitlines()) <= 150


@pytest.mark.usefixtures("users_numerics")
@pytest.mark.parametrize(
    ("code", "output"),
    [
        pytest.param(*found, id=page, marks=[pytest.mark.slow] * ("training." in found[0]))
        for page in PAGES
        for found in EXAMPLE.findall(TEXTS[page])
    ],
)
def test_examples_run_and_print_what_is_shown(code, output, capsys, request):
    if "training." in code:
        request.getfixturevalue("optimised")
    assert len(code.splitlines()) <= 22
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    printed = capsys.readouterr().out
    assert printed
    if output:
        assert words(printed) == words(output)
        assert numbers(printed) == pytest.approx(numbers(output), rel=0.1)


def words(text):
    return re.sub(r"[-+]?\d[\d.]*(?:e[-+]?\d+)?", "#", text).split()


def numbers(text):
    return [float(number) for number in re.findall(r"[-+]?\d[\d.]*(?:e[-+]?\d+)?", text)]


@pytest.mark.parametrize(
    ("letter", "package", "tests"), [("D", "fmu_jax", "tests/fmu"), ("P", "pags_jax", "tests/pags")]
)
def test_deviations_are_the_same_in_readme_docstrings_and_tests(letter, package, tests):
    page = TEXTS[f"{package}/README.md"]
    table = deviations(" ".join(re.findall(rf"^\| ({letter}\d+) \|", page, re.MULTILINE)), letter)
    names = " ".join(re.findall(rf"def test_((?:{letter.lower()}\d+_)+)", python_files(tests)))
    assert table == set(range(1, len(table) + 1)) != set()
    assert table == deviations(python_files(package), letter)
    assert table == deviations(names.upper().replace("_", " "), letter)


def commands(text):
    """The command lines in a page's code: what is run, and the words after it."""
    fence = re.compile(r"^```\w*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    lines = [line for block in fence.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    spans = re.findall(r"`([^`]+)`", fence.sub("", text))
    for line in [*lines, *(span.replace("\n", " ") for span in spans)]:
        words = re.sub(r"^(srun .*?)?(\.venv/bin/)?(python3? -m )", r"\3", line)
        if re.match(r"python3? (-m \w|\.ci/)|fmu-delete\b|make \w", words):
            words = shlex.split(re.sub(r"^python3? (-m )?", "", words), comments=True)
            yield tuple(words)


COMMANDS = sorted({command for page in PAGES for command in commands(TEXTS[page])})
MODULES = [words for words in COMMANDS if words[0].startswith(("scripts.", "benchmarks.", ".ci/"))]
MODULES += [
    ("scripts.reproduce", *shlex.split(word.removeprefix("ARGS=")))
    for words in COMMANDS
    for word in words[2:]
    if words[:2] == ("make", "reproduce")
]
DELETION = [words for page in PAGES for words in commands(TEXTS[page]) if words[0] == "fmu-delete"]


def test_commands_are_found():
    assert len(MODULES) > 30
    assert {words[1] for words in DELETION if words[1:]} == {"train", "delete", "report", "verify"}
    others = {"make", "fmu-delete", "build", "pytest"}
    assert {words[0] for words in COMMANDS} <= {words[0] for words in MODULES} | others


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
@pytest.mark.parametrize("words", MODULES, ids=" ".join)
def test_commands_lead_to_a_plan(words, monkeypatch, capsys):
    """Only a file that the reader must bring, or the run of another command, may be missing."""
    module, *flags = words
    monkeypatch.chdir(ROOT)
    asked = "--help" if module == "scripts.pags.convert" or module.startswith(".ci/") else "--dry-run"  # they have none
    monkeypatch.setattr(sys, "argv", [module, *flags, asked])
    with pytest.raises(SystemExit) as ended:
        if module.startswith(".ci/"):
            runpy.run_path(module, run_name="__main__")
        else:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    said = capsys.readouterr()
    absent = ["--trained", *(flag for flag in flags if not flag.startswith("-") and not Path(flag).exists())]
    assert ended.value.code == 0 or (ended.value.code == 1 and any(name in said.err for name in absent)), said.err
    assert said.out or said.err


@pytest.mark.slow
def test_the_deletion_command_does_what_the_page_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    people = tables.people(600).rename(columns={"paid": "income", "sex": "race"})
    people.replace({"income": {"yes": ">50K", "no": "<=50K"}}).to_csv("people.csv", index=False)
    Path("ids.txt").write_text("0003\n0005\n", encoding="utf-8")
    for words in DELETION:
        if words[1:]:
            assert fmu_delete(list(words[1:])) == 0, capsys.readouterr().err
    assert Path("model/report.html").exists()


def test_make_has_what_is_called():
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {words[1] for words in COMMANDS if words[0] == "make"} <= set(targets)


REPORTS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "benchmarks" / "results").glob("*/README.md"))


@pytest.mark.parametrize("page", [*PAGES, *REPORTS])
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text(encoding="utf-8"))
    assert links or page == "CONTRIBUTING.md"  # which has none
    for link in links:
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), link
