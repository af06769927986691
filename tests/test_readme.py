"""The READMEs say the truth: examples run and print what is shown, deviations have tests, links and commands exist."""

import re
from pathlib import Path

import jax
import pytest

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


@pytest.fixture
def users_numerics():
    """JAX as a user finds it, not under the strict numerics of the tests."""
    defaults = {"jax_enable_x64": False, "jax_numpy_dtype_promotion": "standard", "jax_numpy_rank_promotion": "allow"}
    strict = {name: getattr(jax.config, name) for name in defaults}
    for name, value in defaults.items():
        jax.config.update(name, value)
    yield
    for name, value in strict.items():
        jax.config.update(name, value)


@pytest.mark.usefixtures("users_numerics")
@pytest.mark.parametrize(
    ("code", "output"), [pytest.param(*found, id=page) for page in PAGES for found in EXAMPLE.findall(TEXTS[page])]
)
def test_examples_run_and_print_what_is_shown(code, output, capsys):
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


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist(page):
    for module in re.findall(r"python -m ((?:scripts|benchmarks)[a-z_.]*)", TEXTS[page]):
        assert (ROOT / (module.replace(".", "/") + ".py")).exists(), module
    for target in re.findall(r"(?:^|`)make ([a-z]+)", TEXTS[page], re.MULTILINE):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE), target


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", TEXTS[page]):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), link
