"""Builds the documentation: the READMEs as its guide, and a reference made from the docstrings.

    python .ci/build_docs.py --out docs

Needs the extra `docs`. ``docs/index.html`` is the project's README, every other README is a page beside it, and
``docs/api`` is the reference, with a page for each module. A link that leads nowhere, or a docstring that pdoc cannot
read, is an error; an earlier build then stays as it was.
"""

import dataclasses
import html
import importlib
import os
import pkgutil
import re
import shutil
import string
import sys
import warnings
from pathlib import Path

import markdown2
import pdoc
import pdoc.extract
import pdoc.render

from fmu_jax.deletion import cli

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("fmu_jax", "pags_jax")
GUIDE = {
    "README.md": "Overview",
    "fmu_jax/README.md": "Unlearning",
    "pags_jax/README.md": "Gradients",
    "scripts/README.md": "Experiments",
    "benchmarks/README.md": "Results",
    "CONTRIBUTING.md": "Contributing",
    "CHANGELOG.md": "Changes",
}
"""Pages and their titles; a README becomes its folder's index.html."""
PAGE = string.Template(Path(__file__).with_name("guide.html").read_text(encoding="utf-8"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(cli.Base):
    """Build the documentation."""

    out: Path = Path("docs")
    """Folder for the pages; an earlier build in it is replaced."""


def main(config: Config) -> None:
    """Writes all pages to a folder beside the final one, and then puts it in its place."""
    if config.out.exists() and not (config.out / "api" / "index.html").is_file():
        raise ValueError(f"--out: {config.out} is there and holds no documentation; pass another folder")
    building = config.out.with_name(f"{config.out.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    write_reference(building / "api")
    write_guide(building)
    shutil.rmtree(config.out, ignore_errors=True)
    building.rename(config.out)
    print(f"wrote {config.out / 'index.html'}")


def modules() -> list[str]:
    """What pdoc must be told of to document all modules: by itself it leaves out those that no ``__all__`` names."""
    named: list[str] = [*PACKAGES]
    known = set(pdoc.extract.walk_specs(named))
    for package in PACKAGES:
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if module.name not in known:
                named.append(module.name)
                known |= set(pdoc.extract.walk_specs([module.name]))
    return named


def write_reference(folder: Path) -> None:
    """A page for each module, its mathematics typeset.

    Raises:
      UserWarning: If pdoc warns of anything.
    """
    named = modules()
    for module in map(importlib.import_module, pdoc.extract.walk_specs(named)):
        for name in getattr(module, "__all__", ()):  # Also what is imported when it is first named, which pdoc misses.
            setattr(module, name, getattr(module, name))
    pdoc.render.configure(docformat="google", math=True, footer_text="fmu_jax and pags_jax")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pdoc.pdoc(*named, output_directory=folder)


def write_guide(folder: Path) -> None:
    """The READMEs, with the files that they link to, beside the reference where it is written.

    Raises:
      ValueError: If a link leads nowhere.
    """
    for source in GUIDE:
        path = folder / page_of(source)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(written(source, folder), encoding="utf-8")
    check_anchors(folder)


def written(source: str, folder: Path) -> str:
    """The page of a Markdown file, under links to the others."""
    up = os.path.relpath(".", Path(page_of(source)).parent)
    pages = {page_of(other): title for other, title in GUIDE.items()} | {"api/index.html": "Reference"}
    nav = "".join(f'<a href="{up}/{page}">{title}</a>' for page, title in pages.items())
    extras = ["tables", "fenced-code-blocks", "header-ids", "code-friendly"]
    text = markdown2.markdown((ROOT / source).read_text(encoding="utf-8"), extras=extras)
    body = re.sub(r'(href|src)="([^"]*)"', lambda found: linked(found[1], found[2], source, folder), text)
    return PAGE.substitute(title=html.escape(GUIDE[source]), nav=nav, body=body)


def page_of(source: str) -> str:
    """The page that a Markdown file becomes.

    >>> page_of("fmu_jax/README.md"), page_of("CHANGELOG.md")
    ('fmu_jax/index.html', 'CHANGELOG.html')
    """
    return re.sub(r"README\.md$", "index.md", source).removesuffix("md") + "html"


def linked(attribute: str, link: str, source: str, folder: Path) -> str:
    """A link of a README, to a page where there is one, else to a copy of what it names."""
    if re.match(r"[a-z]+:", link) or link.startswith("#"):
        return f'{attribute}="{link}"'
    name, _, anchor = link.partition("#")
    target = os.path.normpath(Path(source).parent / name)
    if target in GUIDE:
        name = os.path.relpath(page_of(target), Path(source).parent)
    elif (ROOT / target).is_file():
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / target, folder / target)
    elif (ROOT / target).is_dir():
        shutil.copytree(ROOT / target, folder / target, dirs_exist_ok=True)
    else:
        raise ValueError(f"{source} links to {link}, which is not there")
    return f'{attribute}="{name}{"#" if anchor else ""}{anchor}"'


def check_anchors(folder: Path) -> None:
    """Raises ValueError unless the places within pages that any page of a folder links to are there."""
    pages = {page: page.read_text(encoding="utf-8") for page in sorted(folder.rglob("*.html"))}
    places = {page: set(re.findall(r'id="([^"]*)"', text)) for page, text in pages.items()}
    for page, text in pages.items():
        for name, anchor in re.findall(r'href="([^":]*)#([^"]+)"', text):
            other = Path(os.path.normpath(page.parent / name)) if name else page
            if anchor not in places.get(other, ()):
                raise ValueError(f"{page} links to {name}#{anchor}, which is not there")


if __name__ == "__main__":
    sys.exit(cli.run_command({"docs": (Config, main)}, description=__doc__ or ""))
