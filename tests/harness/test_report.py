"""Reports: one self-contained page that escapes whatever it shows."""

import base64
import html.parser
import math
import re
from pathlib import Path

import pytest

from scripts.harness import plot, report

EVIL = "<script>alert('x')</script>\" onload=\"x"


class Reader(html.parser.HTMLParser):
    """Collects tags, attributes and text, and checks that tags nest."""

    VOID = ("meta", "img", "br")

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(path: Path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture
def png(tmp_path: Path) -> Path:
    made, _ = plot.figure()
    return plot.save(made, tmp_path / "figure.png")


def test_everything_shown_is_escaped(tmp_path: Path, png: Path) -> None:
    sections = [
        report.Section(
            EVIL,
            [
                EVIL,
                report.Table([{EVIL: EVIL}], caption=EVIL),
                report.Table([{"a": EVIL}], columns={"a": EVIL}),
                report.Figure(png, alt=EVIL, caption=EVIL),
            ],
        )
    ]
    path = report.write(
        tmp_path / "report.html",
        EVIL,
        sections,
        lead=EVIL,
        config={EVIL: EVIL, "list": [EVIL]},
        environment={EVIL: EVIL},
        timing_s={EVIL: 1.0},
    )
    assert "<script" not in path.read_text(encoding="utf-8")
    reader = read(path)
    assert "script" not in [tag for tag, _ in reader.tags]
    assert not any("onload" in attributes for _, attributes in reader.tags)
    images = [attributes for tag, attributes in reader.tags if tag == "img"]
    assert images[0]["alt"] == EVIL
    assert "".join(reader.text).count(EVIL) >= 14


def test_page_is_self_contained_and_complete(tmp_path: Path, png: Path) -> None:
    blocks = ["First.\n\nSecond.", report.Figure(png, alt="lines", caption="A figure.")]
    sections = [report.Section("Removal", blocks), report.Section("Certificates", [])]
    path = report.write(
        tmp_path / "report.html", "Title", sections, config={"seed": 7}, environment={"jax": "1"}, timing_s={"fit": 2.0}
    )
    reader = read(path)
    links = [v for _, attributes in reader.tags for k, v in attributes.items() if k in ("src", "href")]
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|url\(", text)
    targets = {attributes["id"] for _, attributes in reader.tags if "id" in attributes}
    anchors = [link[1:] for link in links if link.startswith("#")]
    assert anchors == ["s1", "s2", "configuration", "environment", "timing"]
    assert set(anchors) <= targets
    data = next(link for link in links if link.startswith("data:")).partition(",")[2]
    assert base64.b64decode(data) == png.read_bytes()
    for words in ("prefers-color-scheme: dark", "overflow-x: auto", "@media print", "<p>First.</p>", "<p>Second.</p>"):
        assert words in text


def test_tables_from_rows(tmp_path: Path) -> None:
    data = [{"method": "newton", "rows": 37157, "gap": 0.123456}, {"method": "retrain", "gap": math.nan}]
    columns = {"method": "Method", "gap": "Gap", "rows": "Rows"}
    reader = read(report.write(tmp_path / "r.html", "T", [report.Section("S", [report.Table(data, "C", columns)])]))
    text = [part for part in reader.text if part.strip()]
    assert text[text.index("Method") :][:5] == ["Method", "Gap", "Rows", "newton", "0.1235"]
    assert [attributes.get("class") for tag, attributes in reader.tags if tag == "th"] == [None, "number", "number"]
    report.write(tmp_path / "r.html", "T", [report.Section("S", [report.Table([])])])


def test_mistakes_are_refused(tmp_path: Path, png: Path) -> None:
    def write(block: report.Table | report.Figure) -> None:
        report.write(tmp_path / "r.html", "T", [report.Section("S", [block])])

    with pytest.raises(FileNotFoundError):
        write(report.Figure(tmp_path / "absent.png", alt="x"))
    (tmp_path / "fake.png").write_text("<svg>")
    with pytest.raises(ValueError, match=r"fake.png is no PNG"):
        write(report.Figure(tmp_path / "fake.png", alt="x"))
    with pytest.raises(ValueError, match="no row of the table has the column 'gap', only method"):
        write(report.Table([{"method": "newton"}], columns={"gap": "gap"}))
    assert not (tmp_path / "r.html").exists()
