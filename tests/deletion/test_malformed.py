"""Broken and odd tables: read right, or refused by a message that says where and what to do; nobody is mistaken."""

import csv
import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fmu_jax.datasets import delimited
from fmu_jax.datasets.delimited import Layout
from fmu_jax.deletion import command, requests, table, training
from tests.deletion import malformed, tables
from tests.deletion.malformed import AGES, FILES, TABLES, TYPED, Case


def written(folder, case: Case, ending: str):
    """A case as a file."""
    path = folder / f"people.{ending}"
    if not isinstance(case.content, dict):
        path.write_bytes(case.content.encode() if isinstance(case.content, str) else case.content)
    elif ending == "csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(case.content)
            writer.writerows(zip(*case.content.values(), strict=True))
    else:
        content = {name: as_typed(values) for name, values in case.content.items()}
        pd.DataFrame(content).to_parquet(path)
    return path


def as_typed(values):
    """Numbers beside text, which Parquet cannot hold, as text; whole numbers beside none as such."""
    kinds = {type(value) for value in values} - {type(None)}
    if str in kinds and len(kinds) > 1:
        return [None if value is None else str(value) for value in values]
    return pd.array(values, "Int64") if kinds == {int} and None in values else values


def asked(path, case: Case) -> table.Table:
    options = dict(case.options) | {"layout": Layout(**case.options.get("layout", {}))}
    return table.Table(path, "id", "hired", "sex", **options)


def check_right(path, case: Case) -> None:
    """Whoever has an id has the row with their own age and label; those left out are the ones that lack a value."""
    ids, split = table.read(asked(path, case), seed=0)
    told = dict(zip(ids, AGES.values(), strict=True))  # In the file's order, whatever the ids are.
    column = split.feature_names.index("age")
    seen = []
    for rows, data in ((split.train_rows, split.train), (split.test_rows, split.test)):
        ages = np.asarray(data.x)[:, column] * split.scale[column] + split.center[column]
        np.testing.assert_allclose(ages, [told[ids[row]] for row in rows], rtol=1e-9)
        np.testing.assert_array_equal(data.y, rows // 2 % 2)
        seen += rows.tolist()
    assert {ids[row] for row in set(range(malformed.N)) - set(seen)} == set(case.absent)
    assert len(set(split.feature_names)) == len(split.feature_names) == split.train.x.shape[1]


def check_refused(path, case: Case, folder, capsys) -> None:
    """In one line that matches, and without a store."""
    words = ["train", "--csv", path, "--id", "id", "--label", "hired", "--group", "sex", "--store", folder / "store"]
    for name, value in (dict(case.options) | case.options.get("layout", {})).items():
        if name not in ("layout", "default_na"):
            words += ["--" + name.replace("_", "-"), *([value] if isinstance(value, str) else value)]
    with pytest.raises(ValueError, match=case.refused) as error:
        table.read(asked(path, case), seed=0)
    assert case.options.get("layout") or path.name in str(error.value) or "`positive`" in str(error.value), str(
        error.value
    )
    assert command.main(list(map(str, words))) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1, said
    assert sorted(folder.iterdir()) == [path]


def named(cases):
    return pytest.mark.parametrize("case", cases, ids=[case.name.replace(" ", "-") for case in cases])


def check(tmp_path, case: Case, ending: str, capsys) -> None:
    path = written(tmp_path, case, ending)
    if case.refused is None:
        check_right(path, case)
    else:
        check_refused(path, case, tmp_path, capsys)


@named(FILES)
def test_files(tmp_path, capsys, case):
    check(tmp_path, case, "csv", capsys)


@pytest.mark.parametrize("ending", ["csv", "PARQUET"])
@named(TABLES)
def test_columns(tmp_path, capsys, case, ending):
    check(tmp_path, case, ending, capsys)


@named(TYPED)
def test_types(tmp_path, capsys, case):
    check(tmp_path, case, "parquet", capsys)


def test_there_are_enough():
    names = [case.name for case in (*FILES, *TABLES, *TYPED)]
    assert len(set(names)) == len(names) >= 120


THROUGH = {case.name: case for case in (*FILES, *TABLES, *TYPED)}


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("ids with zeros before them", "csv"),
        ("ids of 19 digits as numbers", "parquet"),
    ],
)
def test_ids_lead_to_the_rows_of_the_ledger(tmp_path, name, ending):
    """From the file's bytes to the ledger: the row under each id is that person's; a deletion takes it and no other."""
    case, store = THROUGH[name], tmp_path / "store"
    path = written(tmp_path, case, ending)
    ids, _ = table.read(asked(path, case), seed=0)
    told = dict(zip(ids, AGES.values(), strict=True))
    training.train(store, asked(path, case), objective=tables.OBJECTIVE, seed=1)
    before = ages_in(store, ids)
    assert before == {name: [told[name]] for name in ids}
    gone = ids[3:5]
    requests.delete(store, gone)
    assert ages_in(store, ids) == {name: [] if name in gone else [told[name]] for name in ids}


def ages_in(store, ids):
    """The ages in each person's row, as the ledger has them: none where the row is gone."""
    settings, _, rows = tables.look(store)
    column = settings.feature_names.index("age")
    ages = np.rint(rows[:, column] * settings.scale_of_features[column] + settings.center[column]).astype(int).tolist()
    places = {name: tables.position(store, name) for name in ids}
    return {name: [ages[place]] if rows[place].any() else [] for name, place in places.items()}


CHARACTERS = [",", '"', "\n", "\r", "\r\n", "\t", ";", " ", "\0", "\ufeff", "'", "\\", ",,", '","', '"\n', "\n\n"]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_one_slip_mistakes_nobody(tmp_path_factory, data):
    """A character too many or too few anywhere: refused, or whoever is still known by an id has their own row."""
    good = malformed.text()
    slip = data.draw(st.sampled_from(["", *CHARACTERS]))
    cut = data.draw(st.booleans()) or not slip
    # Of what is cut: separators and line ends. Other letters are values, which may be anything.
    places = [k for k, letter in enumerate(good) if not cut or letter in ",\n"]
    place = data.draw(st.sampled_from(places))
    bad = good[:place] + slip + good[place + cut :]
    path = tmp_path_factory.mktemp("slip") / "people.csv"
    path.write_bytes(bad.encode())
    try:
        ids, split = table.read(table.Table(path, "id", "hired", "sex", max_categories=100), seed=0)
    except ValueError as refused:
        names_the_file(refused, path)
        return
    column = 0  # The slip may be in the name.
    for rows, part in ((split.train_rows, split.train), (split.test_rows, split.test)):
        ages = np.rint(np.asarray(part.x)[:, column] * split.scale[column] + split.center[column])
        for row, age in zip(rows, ages, strict=True):
            assert AGES.get(ids[row], age) == age, (ids[row], age, bad[place - 20 : place + 20])


def names_the_file(error, path, *more):
    assert all(part in str(error) for part in (str(path), *more)), error


LETTERS = st.text(alphabet="ab1,\";\n\r \t'\\é", max_size=6)


def by_csv(text: str) -> list[list[str]]:
    """What Python's own reader makes of a text, blank lines apart."""
    rows = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    return [row for row in rows if row and (len(row) > 1 or row[0].strip())]


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.text(alphabet='ab,"\n\r ', max_size=60), st.lists(st.lists(LETTERS, min_size=2, max_size=2), max_size=5)
    )
)
@example('a,b\r1,"2\n3"\r\n')
@example('a,"b"\n"1""2", "x,y"\n\n')
def test_what_is_accepted_is_what_csv_reads(tmp_path_factory, content):
    if not isinstance(content, str):
        out = io.StringIO(newline="")
        csv.writer(out, lineterminator=("\n", "\r\n", "\r")[len(content) % 3]).writerows([["a", "b"], *content])
        content = out.getvalue()
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    path.write_bytes(content.encode())
    try:
        found = delimited.read_columns(path, Layout())
    except ValueError as refused:
        names_the_file(refused, path)
        return
    header, *rows = by_csv(content)
    assert all(len(row) == len(header) for row in rows)
    ended = not header[-1].strip()
    assert found.names == [name.strip() for name in header[: len(header) - ended]]
    assert [list(row) for row in zip(*found.fields, strict=True)] == [row[: len(header) - ended] for row in rows]
    assert not ended or not any(row[-1].strip() for row in rows)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(LETTERS, min_size=3, max_size=3), min_size=1, max_size=6), st.sampled_from(["\n", "\r\n", "\r"])
)
def test_what_csv_writes_is_read_back(tmp_path_factory, rows, end):
    """Refused is only what looks like records run together."""
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator=end, quoting=csv.QUOTE_ALL).writerows([["x", "y", "z"], *rows])
    try:
        found = delimited.read_columns(path, Layout())
    except ValueError as refused:
        names_the_file(refused, path, "as if it were the end of a record")
        return
    assert [list(row) for row in zip(*found.fields, strict=True)] == rows
