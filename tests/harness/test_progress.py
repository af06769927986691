"""Progress: a bar on a terminal, plain lines elsewhere, never in the way of the items."""

import io

import pytest

from scripts.harness import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_in_a_log(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What, how far, how long: first and last, and between them not too often."""
    assert list(progress.track(range(3), total=5, finished=2, label="demo")) == [0, 1, 2]
    streams = capfd.readouterr()
    assert streams.err == ""
    assert streams.out == "demo: 3 units to do, 2 done earlier\ndemo: 5 of 5 units done in 0 s\n"
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    assert list(progress.track("ab", total=2, label="demo", what="epoch")) == ["a", "b"]
    assert capfd.readouterr().out.splitlines()[1] == "demo: 1 of 2 epochs done, 0 s so far, about 0 s to go"
    assert list(progress.track("a", total=1, label="demo")) == ["a"]
    assert capfd.readouterr().out == "demo: 1 unit to do\ndemo: 1 of 1 unit done in 0 s\n"
    assert list(progress.track("", total=2, finished=2, label="demo")) == []
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(("ci", "shown"), [("", True), ("true", False)])
def test_shown_on_a_terminal_but_not_in_ci(monkeypatch: pytest.MonkeyPatch, ci: str, shown: bool) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("CI", ci)
    assert list(progress.track("ab", total=3, finished=1, label="demo")) == ["a", "b"]
    assert ("demo" in terminal.getvalue()) is shown
    assert ("3/3" in terminal.getvalue()) is shown
