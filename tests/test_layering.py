"""The rules of the layout, checked on the source: what imports what, and what never appears in the packages."""

import ast
import itertools
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts import registry

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("fmu_jax", "pags_jax")
TOP_LEVEL = {
    *("pyproject.toml", "README.md", "Makefile", "LICENSE", "constraints.txt", ".ci", ".gitignore", ".gitattributes"),
    *("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", ".github"),
    *("fmu_jax", "pags_jax", "scripts", "tests", "benchmarks"),
}
MAX_LINES = 300
#: Of all scripts together with so many experiments, and of each further one. Mathematics goes to the packages.
MAX_SCRIPTS_LINES, EXPERIMENTS, MAX_EXPERIMENT_LINES = 6500, 28, 120
FORBIDDEN_IMPORTS = {
    "argparse": "the command line",
    "datetime": "the clock",
    "time": "the clock",
    "matplotlib": "plots",
    "tyro": "the command line",
    **dict.fromkeys(("pickle", "pickletools", "dill", "cloudpickle", "joblib", "shelve", "marshal"), "pickles"),
    "torch": "PyTorch",
}
FORBIDDEN_NAMES = {"sys.argv": "the command line", "sys.stdin": "the terminal"}
#: The one imperative wing: it may read the command line and the clock, print, and write files.
WING = "fmu_jax.deletion"
WING_MAY = {"argparse", "datetime", "time", "tyro"}
DEVICE_CALLS = {"devices", "local_devices", "device_count", "local_device_count", "default_backend"}


def module_name(path: Path, root: Path = ROOT) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST, module: str, is_package: bool = False) -> Iterator[tuple[str, int, bool]]:
    """All (dotted name, line, at import time) that a module imports; ``from a import b`` gives a.b."""
    nodes = [(tree, True)]
    while nodes:
        node, at_import = nodes.pop()
        below = at_import and not isinstance(node, ast.FunctionDef | ast.Lambda)
        nodes += [(child, below) for child in ast.iter_child_nodes(node)]
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, at_import
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.split(".")[: None if is_package and node.level == 1 else -(node.level - is_package)]
                base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield f"{base}.{alias.name}", node.lineno, at_import


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """What a module's source does that its place forbids."""
    found = []
    tree = ast.parse(source)
    package = module.split(".")[0]
    in_wing = f"{module}.".startswith(f"{WING}.")
    lines = source.count("\n")
    if lines > MAX_LINES:
        found.append(f"{module}: {lines} lines, at most {MAX_LINES}")
    if "utils" in module or "helpers" in module.split("."):
        found.append(f"{module}: a module is named after what it does, not utils or helpers")
    if package not in PACKAGES:
        return found
    other = {name for name in (*PACKAGES, "scripts", "tests", "benchmarks") if name != package}
    for name, line, _ in imports(tree, module, is_package):
        top = name.split(".")[0]
        if top in other:
            found.append(f"{module}:{line}: imports {top}")
        if f"{name}.".startswith(f"{WING}.") and not in_wing and module != "fmu_jax":
            found.append(f"{module}:{line}: imports {name}; the wing stands on the packages, nothing stands on it")
        if top in FORBIDDEN_IMPORTS and not (in_wing and top in WING_MAY):
            found.append(f"{module}:{line}: imports {name}; the packages never touch {FORBIDDEN_IMPORTS[top]}")
        if name in FORBIDDEN_NAMES and not in_wing:
            found.append(f"{module}:{line}: imports {name}; the packages never touch {FORBIDDEN_NAMES[name]}")
        if top == "jax" and name.split(".")[-1] in DEVICE_CALLS:
            found.append(f"{module}:{line}: imports {name}; the packages name no device")
    for node in ast.walk(tree):
        name = dotted(node)
        if name in FORBIDDEN_NAMES and not in_wing:
            found.append(f"{module}:{node.lineno}: {name}; the packages never touch {FORBIDDEN_NAMES[name]}")
        if name.startswith("jax.") and name.split(".")[-1] in DEVICE_CALLS:
            found.append(f"{module}:{node.lineno}: {name}; the packages name no device")
        if isinstance(node, ast.Call):
            called = dotted(node.func)
            if called in ("jax.config.update", "config.update"):
                found.append(f"{module}:{node.lineno}: {called}; global settings are the caller's")
            if called == "print" and not in_wing:
                found.append(f"{module}:{node.lineno}: prints")
            keys = {keyword.arg for keyword in node.keywords}
            if called.endswith("jit") and keys & {"backend", "device"}:
                found.append(f"{module}:{node.lineno}: jit for a named device")
    return found


def import_cycle(sources: dict[str, str], packages: frozenset[str] = frozenset()) -> list[str]:
    """A cycle of imports at import time among the modules, or an empty list.

    A package's ``__init__`` is left out as a target: it gathers names for callers, and a module that needs a
    sibling imports the sibling. ``packages`` are those names.
    """
    edges: dict[str, set[str]] = {}
    for module, source in sources.items():
        targets = set()
        for name, _, at_import in imports(ast.parse(source), module, module in packages):
            while name and name not in sources:
                name = name.rpartition(".")[0]
            if at_import and name and name != module and not module.startswith(f"{name}."):
                targets.add(name)
        edges[module] = targets
    state: dict[str, int] = {}

    def visit(module: str, trail: list[str]) -> list[str]:
        state[module] = 1
        for target in sorted(edges[module]):
            if state.get(target) == 1:
                return [*trail[trail.index(target) :], target]
            if target not in state and (cycle := visit(target, [*trail, target])):
                return cycle
        state[module] = 2
        return []

    for module in sorted(sources):
        if module not in state and (cycle := visit(module, [module])):
            return cycle
    return []


def source_files() -> list[Path]:
    return sorted(path for name in (*PACKAGES, "scripts", "benchmarks", ".ci") for path in (ROOT / name).rglob("*.py"))


@pytest.mark.parametrize("path", source_files(), ids=lambda path: module_name(path))
def test_module_keeps_the_rules(path: Path) -> None:
    assert violations(path.read_text(encoding="utf-8"), module_name(path), path.name == "__init__.py") == []


def test_scripts_stay_thin() -> None:
    lines = {path: path.read_text(encoding="utf-8").count("\n") for path in (ROOT / "scripts").rglob("*.py")}
    assert sum(lines.values()) <= most_lines(len(registry.NAMES))


def most_lines(experiments: int) -> int:
    return MAX_SCRIPTS_LINES + MAX_EXPERIMENT_LINES * (experiments - EXPERIMENTS)


def test_the_bound_on_scripts_grows_with_experiments_alone() -> None:
    assert most_lines(EXPERIMENTS) == MAX_SCRIPTS_LINES
    assert most_lines(EXPERIMENTS + 1) - most_lines(EXPERIMENTS) == MAX_EXPERIMENT_LINES
    assert most_lines(EXPERIMENTS - 1) < MAX_SCRIPTS_LINES


def test_no_import_cycle() -> None:
    files = source_files()
    packages = frozenset(module_name(path) for path in files if path.name == "__init__.py")
    assert import_cycle({module_name(path): path.read_text(encoding="utf-8") for path in files}, packages) == []


def test_top_level_holds_only_what_is_planned() -> None:
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    assert {name.split("/")[0] for name in listed.stdout.split("\0") if name} <= TOP_LEVEL


@pytest.mark.parametrize(
    ("module", "source", "said"),
    [
        ("fmu_jax.a", "import pags_jax", "imports pags_jax"),
        ("fmu_jax.a", "from pags_jax.losses import cross_entropy", "imports pags_jax"),
        ("pags_jax.a", "def f():\n    from fmu_jax import fit", "imports fmu_jax"),
        ("pags_jax.a", "from scripts.harness import cli", "imports scripts"),
        ("fmu_jax.a", "import sys\nx = sys.argv[1]", "command line"),
        ("fmu_jax.a", "from sys import argv", "command line"),
        ("fmu_jax.a", "from time import perf_counter", "the clock"),
        ("fmu_jax.a", "import datetime as d", "the clock"),
        ("fmu_jax.a", "from matplotlib import pyplot as plt", "plots"),
        ("fmu_jax.a", "import pickle", "pickles"),
        ("pags_jax.models.a", "def f():\n    import json, dill", "pickles"),
        ("pags_jax.models.a", "if True: from torch.serialization import load", "PyTorch"),
        ("fmu_jax.a", "import jax\ng = jax.devices('gpu')", "no device"),
        ("fmu_jax.a", "from jax import devices", "no device"),
        ("fmu_jax.a", "import jax\njax.config.update('jax_enable_x64', True)", "global settings"),
        ("fmu_jax.a", "import jax\nf = jax.jit(abs, backend='gpu')", "named device"),
        ("fmu_jax.a", "print(1)", "prints"),
        ("fmu_jax.a", "from fmu_jax.deletion import files", "nothing stands on it"),
        ("fmu_jax.a", "import fmu_jax.deletion.cli", "nothing stands on it"),
        ("fmu_jax.deletions", "print(1)", "prints"),
        ("fmu_jax.deletion.a", "def f():\n    from scripts.harness import rows", "imports scripts"),
        ("fmu_jax.deletion.a", "import pags_jax", "imports pags_jax"),
        ("fmu_jax.deletion.a", "from matplotlib import pyplot", "plots"),
        ("fmu_jax.deletion.a", "import pickle", "pickles"),
        ("fmu_jax.deletion.a", "import jax\njax.config.update('jax_enable_x64', True)", "global settings"),
        ("fmu_jax.tree_utils", "", "utils"),
        ("scripts.utils", "", "utils"),
        ("scripts.long", "x = 1\n" * (MAX_LINES + 1), "lines"),
    ],
)
def test_each_rule_can_fail(module: str, source: str, said: str) -> None:
    assert any(said in violation for violation in violations(source, module)), violations(source, module)


@pytest.mark.parametrize(
    "source",
    ["import jax\nimport jax.numpy as jnp\nx = jax.lax.scan", "from fmu_jax import data\nfrom . import metrics"],
)
def test_clean_sources_pass(source: str) -> None:
    assert violations(source, "fmu_jax.a") == []


def test_the_wing_may_touch_the_world() -> None:
    source = "import datetime, time, sys, tyro\nfrom fmu_jax.deletion import files\nprint(sys.argv, sys.stdin)"
    assert violations(source, "fmu_jax.deletion.a") == []
    assert len(violations(source, "fmu_jax.a")) == 7


@pytest.mark.parametrize(
    ("sources", "cyclic"),
    [
        ({"p.a": "from p import b", "p.b": "import p.a"}, True),
        ({"p.a": "from . import b", "p.b": "from .c import f", "p.c": "from p.a import g"}, True),
        ({"p": "from p.a import f", "p.a": "from p import b", "p.b": ""}, False),
        ({"p": "", "q": "from p import x", "p.a": "import q", "p.b": "from p.a import y"}, False),
        ({"p.a": "def f():\n    from p import b", "p.b": "import p.a"}, False),
    ],
)
def test_import_cycles_are_found(sources: dict[str, str], cyclic: bool) -> None:
    assert bool(import_cycle(sources)) is cyclic


@pytest.mark.parametrize(
    ("module", "is_package", "source", "expected"),
    [
        ("p.q.a", False, "from . import b", "p.q.b"),
        ("p.q.a", False, "from ..c import d", "p.c.d"),
        ("p.q", True, "from .a import f", "p.q.a.f"),
        ("p.q", True, "from .. import c", "p.c"),
        ("p.a", False, "import x.y as z", "x.y"),
    ],
)
def test_relative_imports_are_resolved(module: str, is_package: bool, source: str, expected: str) -> None:
    assert [name for name, _, _ in imports(ast.parse(source), module, is_package)] == [expected]


SECTIONS = {"Args:", "Returns:", "Raises:", "Attributes:", "Yields:"}


def ill_indented(source: str) -> list[int]:
    """Lines below a heading of a docstring's section that are not two columns to its right."""
    lines = source.splitlines()
    return [
        number + 2
        for number, (heading, below) in enumerate(itertools.pairwise(lines))
        if heading.strip() in SECTIONS and len(below) - len(below.lstrip()) != len(heading) - len(heading.lstrip()) + 2
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_docstrings_have_one_style(package: str) -> None:
    found = {str(path): ill_indented(path.read_text()) for path in sorted((ROOT / package).rglob("*.py"))}
    assert not {path: lines for path, lines in found.items() if lines}


def test_another_style_is_found() -> None:
    assert ill_indented('"""A.\n\nArgs:\n  x: y.\n\nReturns:\n    z."""') == [7]
