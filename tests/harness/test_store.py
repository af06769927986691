"""Run folders: resume, refusals, damage, and a kill at any moment."""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fmu_jax.deletion import files
from scripts.harness import rows, store

ROOT = Path(__file__).resolve().parents[2]
UNITS = [{"method": "retrain", "seed": seed} for seed in (0, 2, 10)]


@dataclasses.dataclass(frozen=True)
class Config:
    out: Path = Path("runs/x")
    preset: str = "none"
    dry_run: bool = False
    traceback: bool = False
    seed: int = 7
    l2: float = 1e-4
    shares: tuple[float, ...] = (0.01, 0.05)


def fill(out: Path, config: object = None, units: list[dict] = UNITS) -> list[dict]:
    """Run all units; returns those that were not finished before."""
    made = []
    with store.open_run(out, config or Config(), environment={"python": "3"}) as run:
        run.do(units, lambda unit: made.append(unit) or [{"loss": 1.5, "share": share} for share in (0.01, 0.05)])
    return made


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_rows_carry_everything_and_are_ordered(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "run"
    assert fill(out, units=UNITS[::-1]) == UNITS[::-1]
    table = store.read_rows(out)
    assert [row["seed"] for row in table] == [0, 0, 2, 2, 10, 10]  # Numbers in unit names count as numbers.
    first = table[0]
    assert list(first)[:6] == ["method", "seed", "loss", "share", "unit", "wall_s"]
    assert first["unit"] == "method=retrain,seed=0"
    assert first["wall_s"] >= 0
    assert first["config.shares"] == [0.01, 0.05]
    assert first["config.seed"] == 7
    assert first["env.python"] == "3"
    assert not any(name in first for name in ("config.out", "config.dry_run", "config.preset"))
    header = (out / "rows.csv").read_text().splitlines()[0]
    assert header.split(",") == list(first)


def test_the_configurations_seed_fills_in(tmp_path: Path) -> None:
    fill(tmp_path / "run", units=[{"k": 1}])
    assert store.read_rows(tmp_path / "run")[0]["seed"] == 7


def test_default_environment_is_recorded(tmp_path: Path) -> None:
    with store.open_run(tmp_path / "run", Config()) as run:
        run.record("only", [{"a": 1}], wall_s=0.0)
    assert {"env.jax", "env.device", "env.dtype", "env.code"} <= set(store.read_rows(tmp_path / "run")[0])


def test_same_configuration_resumes_and_repeats_nothing(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert fill(out, units=UNITS[:1]) == UNITS[:1]
    unit_file = next((out / "units").iterdir())
    before = unit_file.read_bytes()
    assert fill(out, Config(out=Path("elsewhere"), preset="quick")) == UNITS[1:]
    assert unit_file.read_bytes() == before
    assert fill(out) == []
    assert len(store.read_rows(out)) == 6


def test_another_configuration_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    out = tmp_path / "run"
    fill(out)
    before = snapshot(out)
    with pytest.raises(
        store.RunError, match=r"another configuration \(seed: 7 there, 8 here; l2: 0.0001 there, 0.1 here"
    ):
        fill(out, Config(seed=8, l2=0.1))
    assert snapshot(out) == before


def test_other_peoples_folders_are_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(store.RunError, match=r"no run, but other files \(thesis.tex\)"):
        fill(tmp_path)
    assert snapshot(tmp_path) == {"thesis.tex": b"x"}
    with pytest.raises(store.RunError, match="is a file"):
        fill(tmp_path / "thesis.tex")


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    with (
        store.open_run(tmp_path / "run", Config(), environment={}),
        pytest.raises(store.RunError, match="in use by another process"),
    ):
        fill(tmp_path / "run")
    fill(tmp_path / "run")


def test_leftovers_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    out = tmp_path / "run"
    fill(out, units=UNITS[:2])
    leftover = out / "units" / ".tmp-1-x.json"
    leftover.write_text('{"unit": "method=re')
    assert fill(out) == UNITS[2:]
    assert not leftover.exists()


def test_what_another_writer_has_not_finished_is_not_read(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with store.open_run(out, Config(), environment={}) as run:
        (out / "units" / ".tmp-1-x.json").write_text('{"unit": "method=re')
        run.do(UNITS[:1], lambda unit: [{"value": 1}])
        assert len(run.all_rows()) == 1


@pytest.mark.parametrize("content", ["", '{"unit": "method=re', "[]", '{"unit": "other", "rows": []}', '{"rows": []}'])
def test_a_damaged_unit_is_named(tmp_path: Path, content: str) -> None:
    out = tmp_path / "run"
    fill(out)
    unit_file = next((out / "units").iterdir())
    unit_file.write_text(content)
    with pytest.raises(store.RunError, match=f"{unit_file.name} is damaged; delete it"):
        fill(out)
    unit_file.unlink()
    assert len(fill(out)) == 1


@pytest.mark.parametrize("content", ['{"unit": "method=re', "[1]\n", "\x00"])
def test_damaged_rows_are_named(tmp_path: Path, content: str) -> None:
    out = tmp_path / "run"
    fill(out)
    before = store.read_rows(out)
    (out / "rows.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(store.RunError, match=r"run/rows\.jsonl is damaged .*repeat the run's command, which writes it"):
        store.read_rows(out)
    fill(out)
    assert store.read_rows(out) == before


def test_other_inputs_are_another_configuration(tmp_path: Path) -> None:
    for digest in ("aa", "aa"):
        with store.open_run(tmp_path / "run", {"seed": 1}, inputs={"data_sha256": digest}, environment={}) as run:
            run.do(["one"], lambda unit: [{"value": 1}])
    assert store.read_rows(tmp_path / "run")[0]["config.data_sha256"] == "aa"
    said = r'another configuration \(data_sha256: "aa" there, "bb" here\)'
    with (
        pytest.raises(store.RunError, match=said),
        store.open_run(tmp_path / "run", {"seed": 1}, inputs={"data_sha256": "bb"}, environment={}),
    ):
        pass


def test_a_run_goes_on_where_its_inputs_were_moved_and_with_flags_that_are_new(tmp_path: Path) -> None:
    def run(config: dict[str, object], digest: str = "aa") -> None:
        with store.open_run(tmp_path / "run", config, inputs={"data_sha256": digest}, environment={}) as opened:
            opened.do(["one"], lambda unit: [{"value": 1}])

    run({"seed": 1, "data": "there/table.csv"})
    run({"seed": 1, "data": "here/table.csv", "added": None})
    for other, digest, said in (
        ({"seed": 1, "data": "here/table.csv"}, "bb", 'data_sha256: "aa" there, "bb" here'),
        ({"seed": 1, "data": "here/table.csv", "added": 2}, "aa", "added: null there, 2 here"),
        ({"seed": 2, "data": "there/table.csv"}, "aa", "seed: 1 there, 2 here"),
    ):
        with pytest.raises(store.RunError, match=rf"another configuration \({said}\)"):
            run(other, digest)


def test_a_damaged_configuration_is_named(tmp_path: Path) -> None:
    fill(tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text("{")
    with pytest.raises(store.RunError, match=r"config.json is damaged"):
        fill(tmp_path / "run")


def test_an_error_keeps_finished_units_and_writes_no_table(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(ZeroDivisionError), store.open_run(out, Config(), environment={}) as run:
        run.record("a", [{"x": 1}], wall_s=0.0)
        raise ZeroDivisionError
    assert not (out / "rows.csv").exists()
    with pytest.raises(FileNotFoundError, match="no finished run"):
        store.read_rows(out)
    with store.open_run(out, Config(), environment={}) as run:
        assert run.done("a")


def test_misuse_is_refused(tmp_path: Path) -> None:
    with store.open_run(tmp_path / "run", Config(), environment={}) as run:
        run.record("a", [{"x": 1}], wall_s=0.0)
        with pytest.raises(store.RunError, match="'a' is finished already"):
            run.record("a", [{"x": 2}], wall_s=0.0)
        with pytest.raises(store.RunError, match="2 units of work are called 'b'"):
            run.do(["b", "b"], lambda unit: [])
        for column in ("unit", "wall_s", "config.seed", "env.jax"):
            with pytest.raises(ValueError, match="the store's own"):
                run.record("b", [{column: 2}], wall_s=0.0)
    assert [row["x"] for row in store.read_rows(tmp_path / "run")] == [1]


def test_unit_files_do_not_collide(tmp_path: Path) -> None:
    names = ["a/b", "a b", "a_b", "A_B", "../x", ".tmp-1", "x" * 300, "é", ""]
    with store.open_run(tmp_path / "run", Config(), environment={}) as run:
        for name in names:
            run.record(name, [{"name": name}], wall_s=0.0)
    assert sorted(row["name"] for row in store.read_rows(tmp_path / "run")) == sorted(names)
    assert len(list((tmp_path / "run" / "units").iterdir())) == len(names)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_text(path, "new")
    assert snapshot(tmp_path) == {"a.txt": b"old"}


def test_resuming_elsewhere_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "run")
    with store.open_run(tmp_path / "run", Config(), environment={"python": "4"}):
        pass
    assert 'python: "3" there, "4" here' in capsys.readouterr().err


def test_what_was_stored_without_a_use_does_not_make_another_run(tmp_path: Path) -> None:
    """A run that was given a flag which nothing read is gone on with when the flag is gone, whatever its value."""

    @dataclasses.dataclass(frozen=True)
    class Older(Config):
        rank: int = 16

    class Newer(Config):
        DROPPED = ("rank",)

    assert fill(tmp_path / "run", Older(rank=3), UNITS[:1]) == UNITS[:1]
    before = (tmp_path / "run" / "config.json").read_bytes()
    with pytest.raises(store.RunError, match=r"another configuration .rank: 3 there, null here"):
        fill(tmp_path / "run", Config())
    with pytest.raises(store.RunError, match=r"another configuration .l2: "):
        fill(tmp_path / "run", Newer(l2=1.0))
    assert fill(tmp_path / "run", Newer()) == UNITS[1:]
    assert (tmp_path / "run" / "config.json").read_bytes() == before
    assert [row.get("config.rank") for row in store.read_rows(tmp_path / "run")] == [3, 3, None, None, None, None]


CHILD = """
import sys, time
from pathlib import Path
from scripts.harness import store
out, log = Path(sys.argv[1]), open(sys.argv[2], "ab", buffering=0)
done = store.Run.record
def rows_of(unit):
    log.write(b"started %d\\n" % unit["k"])
    time.sleep(0.001)
    return [{"square": unit["k"] ** 2, "part": part} for part in range(3)]
def record(run, unit, rows, **how):
    done(run, unit, rows, **how)
    log.write(b"finished %d\\n" % unit["k"])
store.Run.record = record
with store.open_run(out, {"seed": 0}, environment={}) as run:
    run.do([{"k": k} for k in range(200)], rows_of)
log.write(b"end\\n")
"""


@pytest.mark.parametrize("most", [pytest.param(4, marks=pytest.mark.slow), pytest.param(10, marks=pytest.mark.weekly)])
def test_kill_at_any_moment_neither_loses_nor_repeats(most: int, tmp_path: Path) -> None:
    out, log = tmp_path / "run", tmp_path / "log"
    moments = random.Random(most)
    done: set[int] = set()
    kills = 0
    for _ in range(60):
        log.write_bytes(b"")
        environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
        with subprocess.Popen([sys.executable, "-c", CHILD, str(out), str(log)], env=environment) as child:
            deadline = time.monotonic() + 30
            while not log.stat().st_size and child.poll() is None and time.monotonic() < deadline:
                time.sleep(0.001)
            if kills < most:
                time.sleep(moments.uniform(0, 0.03))
                child.send_signal(signal.SIGKILL)
                kills += 1
        lines = [line.split() for line in log.read_text().splitlines()]
        started = {int(line[1]) for line in lines if line[0] == "started"}
        finished = {int(line[1]) for line in lines if line[0] == "finished"}
        assert not started & done, "a finished unit was repeated"
        now = {json.loads(path.read_text())["rows"][0]["k"] for path in (out / "units").glob("[!.]*.json")}
        assert done | finished <= now <= done | started, "a finished unit was lost"
        done = now
        if ["end"] in lines:
            break
    assert kills == most
    table = store.read_rows(out)
    assert [(row["k"], row["part"], row["square"]) for row in table] == [
        (k, part, k**2) for k in range(200) for part in range(3)
    ]
    assert rows.to_csv(table) == (out / "rows.csv").read_text()
    assert not list(out.rglob(".tmp-*"))
