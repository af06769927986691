"""Progress: shown on a terminal, silent elsewhere, never in the way of the items."""

import io

import pytest

from scripts.harness import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_silent_where_nobody_looks(capfd: pytest.CaptureFixture[str]) -> None:
    assert list(progress.track(range(3), total=3)) == [0, 1, 2]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("ci", "shown"), [("", True), ("true", False)])
def test_shown_on_a_terminal_but_not_in_ci(monkeypatch: pytest.MonkeyPatch, ci: str, shown: bool) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("CI", ci)
    assert list(progress.track("ab", total=3, finished=1, label="demo")) == ["a", "b"]
    assert ("demo" in terminal.getvalue()) is shown
    assert ("3/3" in terminal.getvalue()) is shown
