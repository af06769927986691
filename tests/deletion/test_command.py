"""The command as a user calls it: help, bad flags, bad input, a session on CSV and on Parquet, the report."""

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fmu_jax import privacy
from fmu_jax.deletion import command as fmu_delete
from fmu_jax.deletion import ledger, page, records, requests, training
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
    assert "secret" in shown or command != "train"
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
        (train_words("a.csv", "model", "--sigma", "-1"), "--sigma: expected a number > 0, got -1.0"),
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
        (["delete", "--store", str(store), "--ids", str(tmp_path / "none.txt")], "none.txt"),
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


def test_rows_over_devices_give_the_same_store(tmp_path, capsys):
    """Trained, refreshed and verified on meshes, whatever the devices at each step; beside one device."""
    table, ids, states = tmp_path / "people.csv", tmp_path / "ids.txt", {}
    tables.people(500).to_csv(table, index=False)
    for name, layouts in (("one", ("", "", "")), ("mesh", ("data=4", "data=8", "data=2"))):
        store = tmp_path / name
        mesh = [["--mesh", layout] if layout else [] for layout in layouts]
        assert fmu_delete.main([*train_words(table, store, "--l2", "1e-3", "--seed", "1"), *mesh[0]]) == 0
        for number, refresh in ((1, []), (2, ["--refresh"])):
            ids.write_text(f"000{number}\n")
            assert fmu_delete.main(["delete", "--store", str(store), "--ids", str(ids), *refresh, *mesh[1]]) == 0
        for layout in ([], mesh[2]) if name == "mesh" else ():
            assert fmu_delete.main(["verify", "--store", str(store), *layout]) == 0, capsys.readouterr().out
        states[name] = tables.look(store)[1]
    np.testing.assert_allclose(states["mesh"].params, states["one"].params, atol=1e-9)
    np.testing.assert_allclose(states["mesh"].residual_bound, states["one"].residual_bound, atol=1e-9)
    assert fmu_delete.main(["verify", "--store", str(store), "--mesh", "data=0"]) == 1
    assert "--mesh: expected axes" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet"])
def test_a_session(tmp_path, capsys, ending):
    table, store, ids = tmp_path / f"people.{ending}", tmp_path / "deep" / "model", tmp_path / "ids.txt"
    people = tables.people(500)
    people.to_parquet(table) if ending == "parquet" else people.to_csv(table, index=False)
    assert fmu_delete.main(train_words(table, store, "--positive", "yes", "--l2", "1e-3", "--drop", "job")) == 0
    said = capsys.readouterr().out
    assert "people: 400 to train on, 100 held out, 0 left out" in said
    assert "label paid: 0 = no, 1 = yes" in said
    assert "still hold everybody" in said
    model = json.loads((store / "model.json").read_text())
    assert model["feature_names"] == ["age", "score", "sex", "bias"]

    for number, content in enumerate(("0001\n", "0002\n0003\n\n 0004 \n"), start=1):
        ids.write_text(content)
        assert fmu_delete.main(["delete", "--store", str(store), "--ids", str(ids)]) == 0
        said = capsys.readouterr().out
        assert said.startswith(f"request {number}: ")
        assert f"{store}/certificates/00000{number}.json" in said
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


def test_sigma_is_the_power_of_two_that_the_plan_needs(tmp_path):
    done = tables.make_store(tmp_path / "model", n=800)
    sigma = done.settings.sigma
    assert math.log2(sigma) == int(math.log2(sigma))
    assert done.planned_people == round(0.01 * done.settings.train_rows)
    assert done.planned_epsilon <= 1.0
    assert float(privacy.certified_epsilon(done.planned_residual, sigma / 2, 1e-5)) > 1.0


def test_people_with_missing_values_are_left_out_and_said_to_be(tmp_path, capsys):
    table, store = tmp_path / "people.csv", tmp_path / "model"
    people = tables.people(300)
    people["age"] = people["age"].map("{:.4f}".format)
    people.loc[[7, 8], "age"] = "?"
    people.to_csv(table, index=False)
    assert fmu_delete.main(train_words(table, store, "--na-values", "?")) == 1
    assert "missing" in capsys.readouterr().err
    assert fmu_delete.main(train_words(table, store, "--na-values", "?", "--missing", "drop")) == 0
    assert "2 left out" in capsys.readouterr().out
    with pytest.raises(
        ValueError, match=r"because ids are left out of the training for a missing value.*: '0007'; corr"
    ):
        requests.delete(store, ["0007", "0009"])
    with pytest.raises(ValueError, match=r"unknown: 'x'; left out .*: '0008'"):
        requests.delete(store, ["x", "0008"])
    record = requests.delete(store, ["x", "0008", "0009"], ignore_missing=True)
    assert records.parse(record)["ignored"] == {"unknown": 1, "left_out": 1, "already_deleted": 0, "repeated": 0}
    assert fmu_delete.main(["verify", "--store", str(store)]) == 0


def test_an_empty_folder_becomes_the_store_and_only_its_owners(tmp_path):
    (tmp_path / "model").mkdir(mode=0o755)
    tables.make_store(tmp_path / "model", n=200, sigma=1.0)
    assert (tmp_path / "model").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "model" / ledger.NAME).exists()


def test_a_budget_below_rounding_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"rounding alone costs epsilon .* use a larger --sigma"):
        tables.make_store(tmp_path / "model", n=200, sigma=1e-13)
    assert not (tmp_path / "model").exists()


def test_the_report_tells_what_the_certificates_say(store):
    requests.delete(store, ["0001"])
    requests.delete(store, ["0002", "0003"], refresh=True)
    path = page.write(store)
    shown = " ".join(path.read_text(encoding="utf-8").split())
    with ledger.opened(store) as db:
        said = [records.parse(record) for record in ledger.records(db)]
    assert "3 people were deleted by 2 requests" in shown
    assert "Retrainings so far: 1." in shown
    assert f"epsilon {said[-1]['epsilon']:g} of 1" in shown
    for content in said:
        assert content["time"] in shown
        assert f"{content['after']['accuracy']:.4g}" in shown
    for words in ("What it does not say", "backups", "secret", "scaling and encoding"):
        assert words in shown
    assert shown.count("data:image/png") == 2
    for name in said[1]["ids"]:
        assert name not in shown


def test_names_from_the_table_are_escaped_in_the_report(tmp_path):
    people = tables.people(200)
    people["sex"] = people["sex"].map({"woman": "<script>w</script>", "man": r"$\frac$"})
    people.to_csv(tmp_path / "people.csv", index=False)
    store = tmp_path / "model"
    assert fmu_delete.main(train_words(tmp_path / "people.csv", store)) == 0
    shown = page.write(store).read_text(encoding="utf-8")
    assert "<script>" not in shown
    assert "&lt;script&gt;w" in shown


def test_as_a_process(store, tmp_path):
    (tmp_path / "ids.txt").write_text("0001\n0001\n")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "fmu_jax.deletion.command",
            "delete",
            "--store",
            str(store),
            "--ids",
            str(tmp_path / "ids.txt"),
        ],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: nobody was deleted, because ids are repeated: '0001'; correct them, or pass --ignore-missing\n"
    )


def test_another_training_at_the_same_time_is_refused(tmp_path):
    with training._building(tmp_path / "model") as place:
        assert place.is_dir()
        with pytest.raises(ValueError, match="another process is training"), training._building(tmp_path / "model"):
            pass
        (place / "file").touch()
    assert (tmp_path / "model" / "file").exists()
