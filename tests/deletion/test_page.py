"""The page: what the certificates say, links that lead to them, round ticks, nothing fetched from elsewhere."""

import dataclasses
import itertools
import re
from html.parser import HTMLParser

import pytest

from fmu_jax.deletion import curves, guarantee, ledger, page, records
from fmu_jax.deletion.model import Settings
from tests.deletion import tables


class Parsed(HTMLParser):
    """The page's elements, links and text, with every opened element closed."""

    VOID = frozenset({"meta", "line", "path", "circle"})

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.elements, self.words = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "a":
            self.links.append(dict(attrs)["href"])

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)


def contents(folder):
    with ledger.opened(folder) as db:
        return Settings.from_json(ledger.meta(db, "settings")), [records.parse(kept) for kept in ledger.records(db)]


def test_the_report_tells_what_the_certificates_say(used):
    path = page.report(used)
    found = Parsed(path.read_text(encoding="utf-8"))
    shown = " ".join(" ".join(found.words).split())
    settings, said = contents(used)
    deleted = sum(sum(content["deleted"].values()) for content in said)
    assert f"{deleted} people deleted, by 2 requests" in shown
    for content in said:
        assert content["time"].replace("T", " ").replace("Z", " UTC") in shown
        assert f"{content['after']['accuracy']:.3f}" in shown
        assert f"{guarantee.rounded_up(content['series']['epsilon'], 3):g}" in shown
    for sentence in said[-1]["statement"]:
        assert sentence in shown
    assert f"certificates of the store {settings.store}, and from nothing else" in shown
    assert all(name not in shown for name in said[1]["ids"])
    assert [(path.parent / link).resolve() for link in found.links] == [
        (used / "certificates" / f"00000{k}.json").resolve() for k in range(3)
    ]
    assert all((path.parent / link).is_file() for link in found.links)


def test_a_page_elsewhere_links_to_the_store(used, tmp_path):
    path = page.report(used, tmp_path / "far" / "page.html")
    links = Parsed(path.read_text(encoding="utf-8")).links
    assert len(links) == 3
    assert all((path.parent / link).is_file() for link in links)


def test_nothing_is_fetched_and_nothing_runs(used):
    text = page.report(used).read_text(encoding="utf-8")
    found = Parsed(text)
    assert not {tag for tag, _ in found.elements} & {"script", "img", "link", "iframe", "object"}
    assert not re.search(r"https?:|@import|url\(|javascript:| on[a-z]+=", text)
    assert len(text) < 60_000
    assert sum(tag == "figure" for tag, _ in found.elements) == 5


def test_names_from_the_table_are_escaped(used):
    settings, said = contents(used)
    odd = dataclasses.replace(settings, group_values=("<script>w</script>", '"&'), label_name="<b>")
    text = page.render(odd, said, "certificates")
    assert "<script>" not in text
    assert "<b>" not in text.replace("<b>3</b>", "").split("<section>")[1]
    assert "&lt;script&gt;w" in text
    Parsed(text)


def test_many_requests_fold_the_earlier_ones_away(used):
    settings, said = contents(used)
    many = [*said, *(said[-1] | {"number": k} for k in range(3, 200))]
    found = Parsed(page.render(settings, many, "certificates"))
    assert len(found.links) == len(set(found.links)) == 200
    assert "150 earlier" in " ".join(found.words)


def test_groups_keep_their_colour_and_nothing_else_has_one(used):
    """Of seven groups the seventh differs from the first by its dashes."""
    settings, said = contents(used)
    seven = [
        content | {"after": content["after"] | {"group_accuracy": [0.5] * 7, "selection_rate": [0.5] * 7}}
        for content in said
    ]
    charts = page._charts(dataclasses.replace(settings, group_values=tuple("abcdefg")), seven, 1.0)
    looks = {}
    for chart in charts:
        for line, _, _ in chart.lines:
            looks.setdefault(line.label, set()).add((line.look, line.dash))
    groups = {label: look for label, look in looks.items() if label.startswith("sex = ")}
    assert len(groups) == 7
    assert all(len(look) == 1 for look in looks.values())
    assert len(set.union(*groups.values())) == 7
    others = set().union(*(look for label, look in looks.items() if label not in groups))
    assert {look for look, _ in others} == {"ink", "soft"}


@pytest.mark.parametrize(
    ("values", "whole"),
    [([0, 1], True), ([0, 25], True), ([3, 3], True), ([0, 1234567], True), ([0.81, 0.8113], False), ([0.5], False),
     ([0, 1e-9], False), ([-2, 5], False), ([0], False)],
)  # fmt: skip
def test_ticks_are_round_and_hold_all_values(values, whole):
    found = curves.ticks(min(values), max(values), whole=whole)
    assert 2 <= len(found) <= 8
    assert found[0] <= min(values)
    assert max(values) <= found[-1]
    steps = {round((b - a) / (found[1] - found[0]), 6) for a, b in itertools.pairwise(found)}
    assert steps == {1.0}
    assert not whole or all(tick == int(tick) for tick in found)


def test_lines_stay_inside_and_break_where_nothing_is_known():
    drawn = curves.draw("a", [curves.Line("b", "ink", [0.5, None, 0.7, 0.6])])
    ((_, path, dots),) = drawn.lines
    assert path.count("M") == 2
    assert len(dots) == 1
    numbers = [float(text) for text in re.findall(r"[\d.]+", path)]
    xs, ys = numbers[::2], numbers[1::2]
    assert all(drawn.left <= x <= drawn.right for x in xs)
    assert all(0 <= y <= drawn.bottom for y in ys)
    assert xs == sorted(xs)
    assert ys[1] < ys[2]  # Higher values are higher up.


def test_counts_have_whole_ticks_and_steps():
    drawn = curves.draw("people", [curves.Line("deleted", "ink", [0, 1, 3], steps=True)], zero=True, whole=True)
    assert [tick.text for tick in drawn.y_ticks] == ["0", "1", "2", "3"]
    assert [tick.text for tick in drawn.x_ticks] == ["0", "1", "2"]
    assert "H" in drawn.lines[0][1]
    assert "L" not in drawn.lines[0][1]


def test_a_store_of_the_training_alone_has_a_page(store):
    text = " ".join(Parsed(page.report(store).read_text(encoding="utf-8")).words)
    assert "Nobody whom the published model was trained on has been deleted" in text
    assert tables.look(store)[0].store in text
