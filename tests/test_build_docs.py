"""The guide is made of the READMEs, and a link that leads nowhere stops the build."""

import build_docs
import pytest


def test_the_guide_has_a_page_for_each_readme_whose_links_lead_somewhere(tmp_path):
    (tmp_path / "api").mkdir()
    build_docs.write_guide(tmp_path)
    front = (tmp_path / "index.html").read_text()
    assert '<a href="fmu_jax/index.html#when-the-guarantee-holds-and-when-not">' in front
    assert "<h1 id=" in front
    assert "fmu_jax and pags_jax</h1>" in front
    for source in build_docs.GUIDE:
        assert (tmp_path / build_docs.page_of(source)).is_file()
    assert (tmp_path / "CITATION.cff").is_file()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[a](absent.md)", r"README\.md links to absent\.md, which is not there"),
        ("# One\n\n[two](#two)", "links to #two, which is not there"),
        ("[two](CHANGELOG.md#two)", r"links to CHANGELOG\.html#two, which is not there"),
    ],
)
def test_links_that_lead_nowhere_are_refused(text, said, tmp_path, monkeypatch):
    monkeypatch.setattr(build_docs, "ROOT", tmp_path)
    monkeypatch.setattr(build_docs, "GUIDE", {"README.md": "Overview", "CHANGELOG.md": "Changes"})
    (tmp_path / "README.md").write_text(text)
    (tmp_path / "CHANGELOG.md").write_text("# Changes")
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match=said):
        build_docs.write_guide(tmp_path / "out")


def test_a_folder_of_something_else_is_never_replaced(tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(ValueError, match="is there and holds no documentation"):
        build_docs.main(build_docs.Config(out=tmp_path))
    assert (tmp_path / "mine.txt").exists()


@pytest.mark.slow
def test_pdoc_is_told_of_every_module():
    named = build_docs.modules()
    assert named[:2] == list(build_docs.PACKAGES)
    known = set(build_docs.pdoc.extract.walk_specs(named))
    files = {path for name in build_docs.PACKAGES for path in (build_docs.ROOT / name).rglob("*.py")}
    modules = {".".join(path.relative_to(build_docs.ROOT).with_suffix("").parts) for path in files}
    assert {name.removesuffix(".__init__") for name in modules} <= known
