"""The command as a user calls it: help, bad flags, bad input, a session on CSV and on Parquet, the report."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fmu_jax
from fmu_jax.deletion import __main__ as entry
from fmu_jax.deletion import command as fmu_delete
from fmu_jax.deletion import exports, ledger, requests, training
from fmu_jax.deletion.flags import Train
from tests import strict
from tests.deletion import tables

ROOT = Path(__file__).resolve().parents[2]


def train_words(table, store, *more):
    return [
        "train",
        "--csv",
        str(table),
        "--id",
        "id",
        "--label",
        "paid",
        "--group",
        "sex",
        "--store",
        str(store),
        *more,
    ]


@pytest.mark.parametrize("command", fmu_delete.COMMANDS)
def test_help_names_every_flag_with_words(command, capsys):
    with pytest.raises(SystemExit) as end:
        fmu_delete.main([command, "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    config_type, _ = fmu_delete.COMMANDS[command]
    for field in dataclasses.fields(config_type):
        assert "--" + field.name.replace("_", "-") in shown
    assert "noise" in shown or command != "train"
    assert "Exit status" in shown or command not in ("delete", "verify")


def test_help_lists_the_commands(capsys):
    with pytest.raises(SystemExit) as end:
        fmu_delete.main(["--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert all(command in shown for command in fmu_delete.COMMANDS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "train"),
        (["forget"], "forget"),
        (["delete", "--store", "model"], "--ids"),
        (["verify"], "--store"),
        (["train", "--csv", "a.csv"], "--label"),
        (train_words("a.csv", "model", "--epsilon", "0"), "--epsilon: expected a number > 0, got 0.0"),
        (train_words("a.csv", "model", "--delta", "1"), "--delta: expected a number in (0, 1), got 1.0"),
        (train_words("a.csv", "model", "--mu", "-1"), "--mu: expected a number > 0, got -1.0"),
        (train_words("a.csv", "model", "--releases", "0"), "--releases: expected an integer >= 1, got 0"),
        (train_words("a.csv", "model", "--seed", "-1"), "--seed: expected an integer in [0, 4294967295], got -1"),
        (train_words("a.csv", "model", "--penalty", "none"), "equalized_odds"),
        (["report", "--store", "model", "--seed", "1"], "--seed"),
    ],
)
def test_bad_flags_are_refused(words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        fmu_delete.main(words)
    assert end.value.code == 2
    streams = capsys.readouterr()
    assert said in " ".join(streams.err.split())
    assert "Traceback" not in streams.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_bad_input_is_one_line(tmp_path, store, capsys):
    table, ids = tmp_path / "people.csv", tmp_path / "ids.txt"
    tables.people(60).to_csv(table, index=False)
    ids.write_text("nobody\n")
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    for words, said in (
        (train_words(tmp_path / "none.csv", tmp_path / "new"), "no file"),
        (train_words(table, tmp_path / "new", "--positive", "YES"), "--positive: column 'paid' has no value 'YES'"),
        (train_words(table, tmp_path / "new", "--drop", "salary"), "no column 'salary'"),
        (train_words(table, tmp_path / "taken"), "exists and stays as it is"),
        (train_words(table, store), "exists and stays as it is"),
        (train_words(table, table), "exists and stays as it is"),
        (["delete", "--store", str(tmp_path), "--ids", str(ids)], "there is no store in"),
        (["delete", "--store", str(store), "--ids", str(ids)], "unknown: 'nobody'"),
        (["delete", "--store", str(store), "--ids", str(tmp_path / "empty.txt")], "holds no id"),
        (["delete", "--store", str(store), "--ids", str(tmp_path / "none.txt")], "none.txt; it is a text file"),
        (["report", "--store", str(tmp_path / "none")], "there is no store in"),
        (["verify", "--store", str(tmp_path / "none")], "there is no store in"),
    ):
        assert fmu_delete.main(words) == 1, words
        streams = capsys.readouterr()
        assert streams.err.startswith("error: ")
        assert said in streams.err
        assert streams.err.count("\n") == 1
        assert streams.out == ""
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "taken" / "notes.txt").read_text() == "mine"


def told_of_noise(capsys, **series):
    """What training says of a table that is right for 0.75 of the people without noise; ``releases_9=0.6`` with it."""
    settings: Any = types.SimpleNamespace(
        train_rows=80, test_rows=20, label_name="paid", label_values=("no", "yes"), group_name="sex", scale=1.0, mu=0.3,
        group_values=("man", "woman"), feature_names=("age",), admitted=2.0, releases=100, l2=1e-4,
    )  # fmt: skip
    found = {int(name.removeprefix("releases_")): (1.0, accuracy) for name, accuracy in series.items()}
    done = training.Trained(settings, 0, 1, 1.5, 0.75, 0.75, found)
    config = Train(csv=Path("a.csv"), id="id", label="paid", group=("sex",), store=Path("model"))
    fmu_delete.show_training(config, done)
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]


def test_noise_that_takes_the_accuracy_is_told_with_what_takes_less(capsys):
    assert told_of_noise(capsys, releases_1=0.75, releases_100=0.74) == []
    (said,) = told_of_noise(capsys, releases_1=0.75, releases_10=0.74, releases_100=0.5)
    assert "with 100 releases planned, the noise takes 0.25 of the accuracy" in said
    assert "--l2, such as 0.001," in said
    assert "--admitted, such as 0.002" in said
    assert "--releases 10." in said
    (said,) = told_of_noise(capsys, releases_1=0.6, releases_100=0.5)
    assert "fewer releases" not in said  # One would be too noisy, too.


@pytest.mark.parametrize("ending", ["csv.gz", "parquet"])
def test_a_session(tmp_path, capsys, ending):
    table, store, ids = tmp_path / f"people.{ending}", tmp_path / "deep" / "model", tmp_path / "ids.txt"
    people = tables.people(400)
    people.to_parquet(table) if ending == "parquet" else people.to_csv(table, index=False)
    assert fmu_delete.main(train_words(table, store, "--positive", "yes", "--l2", "1e-3", "--seed", "1")) == 0
    said = capsys.readouterr().out
    assert "people: 320 to train on, 80 held out, 0 left out" in said
    assert "label paid: 0 = no, 1 = yes" in said
    assert "still hold everybody" in said
    assert "100 releases with noise of scale" in said
    assert "trained without noise (with secret noise in the training, as in the paper" in said
    lever = [line.split() for line in said.splitlines() if re.fullmatch(r" +10*   [\d.e-]+ +[\d.]+", line)]
    assert [line[0] for line in lever] == ["1", "10", "100", "1000"]
    assert sorted(float(line[1]) for line in lever) == [float(line[1]) for line in lever]

    settings = tables.look(store)[0]
    assert tables.position(store, "0001") >= settings.test_rows  # Trained on: its deletion is a release.
    for number, content in enumerate(("0001\n", "0002\n0003\n\n 0004 \n"), start=1):
        ids.write_text(content)
        assert fmu_delete.main(["delete", "--store", str(store), "--ids", str(ids)]) == 0
        said = capsys.readouterr().out
        assert said.startswith(f"request {number}: ")
        assert f"{store}/certificates/00000{number}.json" in said
        assert f"all releases so far ({number}): epsilon" in said
        assert "do not publish this line" in said
        assert "backups" in said
    ids.write_text("0001\n0005\n0005\nann\n")
    assert fmu_delete.main(["delete", "--store", str(store), "--ids", str(ids), "--ignore-missing"]) == 0
    assert "passed over: 1 unknown, 1 already deleted, 1 repeated" in capsys.readouterr().out
    assert fmu_delete.main(["verify", "--store", str(store)]) == 0
    assert "FAIL" not in capsys.readouterr().out
    assert fmu_delete.main(["report", "--store", str(store)]) == 0
    assert (store / "report.html").stat().st_mode & 0o777 == 0o600


def test_the_published_model_predicts_as_it_says(tmp_path, store):
    """With ``model.json`` alone, on the user's own columns."""
    requests.delete(store, ["0001"])
    model = json.loads((store / "model.json").read_text())
    people = tables.people(400)
    columns = {
        "age": people["age"],
        "score": people["score"],
        **{f"job={job}": people["job"] == job for job in ("clerk", "cook", "smith")},
        "sex": people["sex"] == "woman",
    }
    features = np.column_stack([columns[name] for name in model["feature_names"][:-1]]).astype(float)
    scaled = np.column_stack([(features - model["center"]) / model["scale"], np.ones(len(people))])
    predicted = np.where(scaled @ np.array(model["params"]) > 0, *model["label_values"][::-1])
    assert 0.6 < (predicted == people["paid"]).mean() < 1
    settings, _, rows = tables.look(store)
    held_out = [k for k in range(400) if tables.position(store, f"{k:04d}") < settings.test_rows]
    said = json.loads((store / "certificates/000001.json").read_text())["after"]["accuracy"]
    alive = [k for k in held_out if rows[tables.position(store, f"{k:04d}"), -3] == 1]
    assert round((predicted == people["paid"])[alive].mean(), 3) == said


def test_people_with_missing_values_are_left_out_and_said_to_be(tmp_path, capsys):
    table, store = tmp_path / "people.csv", tmp_path / "model"
    people = tables.people(402)
    people["age"] = people["age"].map("{:.4f}".format)
    people.loc[[7, 8], "age"] = "?"
    people.to_csv(table, index=False)
    assert fmu_delete.main(train_words(table, store, "--na-values", "?")) == 1
    assert "missing" in capsys.readouterr().err
    assert fmu_delete.main(train_words(table, store, "--na-values", "?", "--missing", "drop", "--l2", "1e-3")) == 0
    assert "2 left out" in capsys.readouterr().out
    with pytest.raises(
        ValueError, match=r"because ids are left out of the training for a missing value.*: '0007'; corr"
    ):
        requests.delete(store, ["0007", "0009"])
    with pytest.raises(ValueError, match=r"unknown: 'x'; left out .*: '0008'"):
        requests.delete(store, ["x", "0008"])
    receipt = requests.delete(store, ["x", "0008", "0009"], ignore_missing=True)
    assert receipt.certificate["ignored"] == {"unknown": 1, "left_out": 1, "already_deleted": 0, "repeated": 0}
    assert fmu_delete.main(["verify", "--store", str(store)]) == 0


def test_an_empty_folder_becomes_the_store_and_only_its_owners(tmp_path):
    (tmp_path / "model").mkdir(mode=0o755)
    tables.make_store(tmp_path / "model")
    assert (tmp_path / "model").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "model" / ledger.NAME).exists()


def test_as_a_process(store, tmp_path):
    (tmp_path / "ids.txt").write_text("0001\n0001\n")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "fmu_jax.deletion",
            "delete",
            "--store",
            str(store),
            "--ids",
            str(tmp_path / "ids.txt"),
        ],
        cwd=ROOT,
        env=strict.one_device(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: nobody was deleted, because ids are repeated: '0001'; correct them, or pass --ignore-missing\n"
    )


def run(code, **environment):
    """Python in a process of its own, without the tests' settings."""
    words = [sys.executable, "-c", code]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    return subprocess.run(words, cwd=ROOT, env=kept | environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("words", [["--help"], *([name, "--help"] for name in fmu_delete.COMMANDS)])
def test_help_does_not_wait_for_jax(words):
    done = run(
        f"import sys\nfrom fmu_jax.deletion.__main__ import main\ntry:\n    main({words!r})\nfinally:\n"
        "    assert not {'jax', 'pandas', 'scipy'} & sys.modules.keys()"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "--store" in done.stdout or words == ["--help"]


def test_modules_and_functions_are_reached_by_dots():
    done = run(
        "import fmu_jax\nprint(fmu_jax.objective.value, fmu_jax.penalties.FORMS, fmu_jax.deletion.train, fmu_jax.fit)"
    )
    assert (done.returncode, done.stderr) == (0, "")
    with pytest.raises(AttributeError, match="module 'fmu_jax' has no attribute 'nothing'"):
        fmu_jax.nothing  # noqa: B018
    assert all(getattr(fmu_jax, name) is not None for name in fmu_jax.__all__)
    assert all(getattr(fmu_jax.deletion, name) is not None for name in fmu_jax.deletion.__all__)


@pytest.mark.parametrize("package", entry.EXTRA[:1])
def test_without_the_extra_one_line_says_what_to_install(package):
    start = f"import sys\nsys.modules[{package!r}] = None\n"
    done = run(start + "from fmu_jax.deletion.__main__ import main\nsys.exit(main(['verify']))")
    assert done.returncode == 1
    assert done.stderr == (
        f"error: fmu-delete needs {package}; "
        "in a checkout: pip install '.[deletion]'; with a wheel: pip install 'FILE.whl[deletion]'\n"
    )


def test_compiled_programs_are_kept_where_the_user_says():
    def kept(words=(), **environment):
        entry.keep_compiled(list(words), environment)
        return environment

    everything = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
    assert kept() == {"JAX_COMPILATION_CACHE_DIR": str(Path.home() / ".cache" / "fmu-pags-jax")} | everything
    assert kept(XDG_CACHE_HOME="/a")["JAX_COMPILATION_CACHE_DIR"] == "/a/fmu-pags-jax"
    assert kept(XDG_CACHE_HOME="a")["JAX_COMPILATION_CACHE_DIR"] == str(Path.home() / ".cache" / "fmu-pags-jax")
    assert kept(JAX_COMPILATION_CACHE_DIR="/b", XDG_CACHE_HOME="/a")["JAX_COMPILATION_CACHE_DIR"] == "/b"
    assert kept(["verify", "--no-compilation-cache"]) == {"JAX_ENABLE_COMPILATION_CACHE": "false"}


def test_another_training_at_the_same_time_is_refused(tmp_path):
    with exports.building(tmp_path / "model") as place:
        assert place.is_dir()
        with pytest.raises(ValueError, match="another process is training"), exports.building(tmp_path / "model"):
            pass
        (place / "file").touch()
    assert (tmp_path / "model" / "file").exists()
