"""Command lines: typed, ranged, complete help, presets, dry runs, exit statuses."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.harness import cli


@dataclasses.dataclass(frozen=True)
class Config(cli.Common):
    """Remove rows, and see what is left of fairness."""

    PRESETS: ClassVar = {"quick": {"repeats": 1, "shares": (0.5,)}}

    out: Path = Path("runs/example")
    repeats: cli.Count = 5
    """How often each deletion is drawn anew."""
    shares: tuple[cli.Share, ...] = (0.01, 0.05)
    """Shares of the training rows to remove."""
    sigma: cli.Positive = 1.0
    """Noise on the objective."""
    delta: cli.Probability = 1e-4
    penalty: Literal["equalized_odds", "demographic_parity"] = "equalized_odds"
    verbose: bool = False


def plan(config: Config) -> list[dict[str, int]]:
    return [{"seed": k} for k in range(config.repeats)]


def test_defaults_then_preset_then_flags() -> None:
    assert cli.parse(Config, []) == Config()
    assert cli.parse(Config, ["--preset", "quick"]) == Config(preset="quick", repeats=1, shares=(0.5,))
    given_wins = cli.parse(Config, ["--repeats", "5", "--preset=quick"])
    assert given_wins == Config(preset="quick", repeats=5, shares=(0.5,))


def test_help_lists_every_flag_with_range_default_and_words(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.parse(Config, ["--help"])
    assert stop.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for field in dataclasses.fields(Config):
        assert f"--{field.name.replace('_', '-')}" in shown
    for words in (
        "NUMBER in (0, 1]",
        "INTEGER >= 1",
        "NUMBER > 0",
        "How often each deletion",
        "(default: 0.01",
        "quick",
    ):
        assert words in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--sigma 0", "error: --sigma: expected a number > 0, got 0.0"),
        ("--sigma=-1", "error: --sigma: expected a number > 0, got -1.0"),
        ("--sigma -1", "error: --sigma: expected a number > 0, got -1.0"),
        ("--sigma nan", "error: --sigma: expected a number > 0, got nan"),
        ("--sigma inf", "error: --sigma: expected a number > 0, got inf"),
        ("--delta 1", "error: --delta: expected a number in (0, 1), got 1.0"),
        ("--repeats 0", "error: --repeats: expected an integer >= 1, got 0"),
        ("--seed 4294967296", "error: --seed: expected an integer in [0, 4294967295], got 4294967296"),
        ("--shares 0.1 1.5", "error: --shares: expected a number in (0, 1], got 1.5"),
        ("--shares", "error: --shares: expected at least one value"),
        ("--preset paper", "invalid choice 'paper' for argument '--preset'"),
        ("--sigma x", "expected a number > 0, got 'x'"),
        ("--repeats 1.5", "expected an integer >= 1, got '1.5'"),
        ("--penalty parity", "Expected one of"),
        ("--no-such-flag 1", "--no-such-flag"),
        ("stray", "stray"),
    ],
)
def test_bad_words_are_refused_with_the_allowed_range(
    words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.parse(Config, words.split())
    streams = capsys.readouterr()
    assert stop.value.code == 2
    assert said in streams.err
    assert "Traceback" not in streams.err
    assert streams.out == ""


def test_configurations_made_in_python_are_checked_too() -> None:
    cli.check(Config(sigma=2))
    with pytest.raises(ValueError, match=r"--sigma: expected a number > 0, got -1"):
        cli.check(Config(sigma=-1))
    with pytest.raises(ValueError, match=r"--repeats: expected an integer >= 1, got True"):
        cli.check(Config(repeats=True))


@settings(max_examples=25, deadline=None)
@given(
    repeats=st.integers(1, 10**9),
    shares=st.lists(st.floats(0, 1, exclude_min=True), min_size=1, max_size=4),
    sigma=st.floats(1e-300, 1e300),
    seed=st.integers(0, 2**32 - 1),
    verbose=st.booleans(),
)
def test_command_line_round_trip(repeats: int, shares: list[float], sigma: float, seed: int, verbose: bool) -> None:
    config = Config(repeats=repeats, shares=tuple(shares), sigma=sigma, seed=seed, verbose=verbose)
    words = ["--repeats", str(repeats), "--sigma", repr(sigma), "--seed", str(seed), "--shares", *map(repr, shares)]
    assert cli.parse(Config, words + ["--verbose"] * verbose) == config


def test_dry_run_shows_configuration_and_units_and_does_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(config: Config) -> None:
        raise AssertionError("a dry run must not do the work")

    out = tmp_path / "run"
    assert cli.run(never, Config, plan=plan, argv=["--dry-run", "--repeats", "2", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "repeats = 2" in shown
    assert "units of work: 2\n  seed=0\n  seed=1\n" in shown
    assert not out.exists()


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ValueError("sigma must be positive"), 1, "error: sigma must be positive\n"),
        (FileNotFoundError(2, "No such file", "a.csv"), 1, "a.csv"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_user_errors_become_one_line(
    error: BaseException, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(config: Config) -> None:
        raise error

    assert cli.run(main, Config, argv=[]) == status
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.count("\n") == 1
    if status == 1:
        assert cli.run(main, Config, argv=["--traceback"]) == 1
        assert "Traceback" in capsys.readouterr().err


def test_bugs_keep_their_traceback() -> None:
    def main(config: Config) -> None:
        raise TypeError("a bug")

    with pytest.raises(TypeError, match="a bug"):
        cli.run(main, Config, argv=[])


def test_as_a_process(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom scripts.harness import cli\n"
        "def main(config):\n    raise ValueError('no such data set')\n"
        "sys.exit(cli.run(main, cli.Common))\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, str(script)],
        env={"PYTHONPATH": str(root), "PATH": ""},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr, done.stdout) == (1, "error: no such data set\n", "")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paint(cli.Base):
    """Paint a wall."""

    wall: Path
    """Which wall."""
    coats: cli.Count = 1
    share: cli.Share | None = None
    """How much of it; all by default."""
    colors: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wash(cli.Base):
    """Wash a wall."""

    wall: Path


def call(words: str, main=lambda config: None) -> int:
    return cli.run_command({"paint": (Paint, main), "wash": (Wash, main)}, description="Walls.", argv=words.split())


def test_the_first_word_names_a_command() -> None:
    seen: list[object] = []
    assert call("paint --wall north --share 0.5 --colors red blue", seen.append) == 0
    assert call("wash --wall south --traceback", seen.append) == 0
    assert call("paint --wall east", seen.append) == 0
    assert seen == [
        Paint(wall=Path("north"), share=0.5, colors=("red", "blue")),
        Wash(wall=Path("south"), traceback=True),
        Paint(wall=Path("east")),
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "paint"),
        ("burn --wall north", "burn"),
        ("wash", "--wall"),
        ("wash --wall north --coats 2", "--coats"),
        ("paint --wall north --coats 0", "error: --coats: expected an integer >= 1, got 0"),
        ("paint --wall north --share 2", "error: --share: expected a number in (0, 1], got 2.0"),
    ],
)
def test_bad_words_of_a_command_are_refused(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        call(words)
    streams = capsys.readouterr()
    assert stop.value.code == 2
    assert said in streams.err
    assert streams.out == ""


@pytest.mark.parametrize("words", ["--help", "paint --help", "wash --help"])
def test_help_of_commands(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        call(words)
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    expected = {"--help": ("Walls.", "paint", "wash"), "paint": ("--coats", "NUMBER in (0, 1]", "Which wall.")}
    assert all(word in shown for word in expected.get(words.split()[0], ("--wall", "(required)")))


def test_errors_of_a_command_become_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(config: cli.Base) -> None:
        raise ValueError("no paint left")

    def stop(config: cli.Base) -> None:
        raise KeyboardInterrupt

    assert call("paint --wall north", fail) == 1
    assert capsys.readouterr().err == "error: no paint left\n"
    assert call("paint --wall north --traceback", fail) == 1
    assert "Traceback" in capsys.readouterr().err
    assert call("wash --wall north", stop) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_help_offers_the_presets_that_there_are_and_names_the_module(capsys: pytest.CaptureFixture[str]) -> None:
    """No preset of other scripts, and a command that can be typed again."""

    @dataclasses.dataclass(frozen=True)
    class Plain(cli.Common):
        """A script without presets."""

    for config, offered in ((Config, "{none,quick}"), (Plain, "{none}")):
        with pytest.raises(SystemExit):
            cli.parse(config, ["--help"])
        shown = capsys.readouterr().out
        assert f"--preset {offered}" in shown
        assert "full" not in shown
        with pytest.raises(SystemExit):
            cli.parse(config, ["--no-such-flag"])
        assert f"python -m {__name__} --help" in " ".join(re.findall(r"[^\s│]+", capsys.readouterr().err))
