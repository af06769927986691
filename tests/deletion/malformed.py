"""Tables as people have them: broken, odd, or merely unusual; and what must become of each.

Nobody shares an age with another, so that a row tells whose it is; ids run against the rows, so that row numbers are
ids of others.
"""

import datetime as dt
import gzip
from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

N = 80
IDS = [str(N - k) for k in range(N)]
AGES = {name: 1000 + 37 * k % 1009 for k, name in enumerate(IDS)}
HEADER = ["id", "age", "job", "sex", "hired"]


class Case(NamedTuple):
    """A table.

    Attributes:
      name: what is odd about it.
      content: bytes of a CSV file, or columns by name.
      refused: what the message must match; None if the table is read right.
      options: further fields of ``fmu_jax.deletion.table.Table`` (`layout` as a mapping).
      absent: ids that are left out.
    """

    name: str
    content: Any
    refused: str | None = None
    options: Mapping[str, Any] = MappingProxyType({})
    absent: tuple[str, ...] = ()


def columns(**changed: Any) -> dict[str, Any]:
    """The people, column by column, with other values for some; a list of N, or a function of the usual values."""
    usual = {
        "id": IDS,
        "age": [AGES[name] for name in IDS],
        "job": [("cook", "clerk", "smith")[k % 3] for k in range(N)],
        "sex": [("woman", "man")[k % 2] for k in range(N)],
        "hired": [k // 2 % 2 for k in range(N)],
    }
    return usual | {name: new(usual[name]) if callable(new) else new for name, new in changed.items()}


def at(values: dict[int, Any]):
    """A change of single entries."""
    return lambda usual: [values.get(k, value) for k, value in enumerate(usual)]


def each(change):
    """A change of every entry."""
    return lambda usual: [change(value) for value in usual]


def lines(sep: str = ",") -> list[str]:
    """The people's CSV file, line by line."""
    rows = zip(*columns().values(), strict=True)
    return [sep.join(HEADER), *(sep.join(map(str, row)) for row in rows)]


def text(changed: dict[int, str] | None = None, *, sep: str = ",", end: str = "\n", header: str | None = None) -> str:
    """The same as one text, with other lines at some places (0 is the header)."""
    found = lines(sep)
    for place, line in (changed or {}).items():
        found[place] = line
    return end.join([header or found[0], *found[1:]]) + end


def cut(line: str) -> str:
    return line.rsplit(",", 1)[0]


L = lines()
NAMED = [f"{k + 1},{line}" for k, line in enumerate(L[1:])]
"""As R's write.table leaves records whose row names have no name in the header."""
PERSON = L[3]
FIELDS = r"line {}: {} fields where the header \(line 1\) has 5, in '{}"

FILES = [
    # Fields: too many and too few, in the first, the last and each record.
    Case("R's row names", "\n".join([L[0], *NAMED]).encode(), FIELDS.format(2, 6, "1,80,")),
    Case(
        "row names, all quoted", "\n".join([L[0], *(f'"{line[0]}",{line}' for line in L[1:])]), FIELDS.format(2, 6, "")
    ),
    Case(
        "row names and an empty last column",
        "\n".join([L[0], *(cut(line) + "," for line in NAMED)]),
        FIELDS.format(2, 6, ""),
    ),
    Case(
        "a number with a comma in the first record",
        text({1: L[1].replace("1000", "1,000")}),
        FIELDS.format(2, 6, "80,1,000"),
    ),
    Case(
        "a number with a comma in the last record", text({N: L[N].replace(",", ",1,", 1)}), FIELDS.format(N + 1, 6, "")
    ),
    Case("a number with a comma in between", text({40: L[40].replace(",", ",1,", 1)}), FIELDS.format(41, 6, "")),
    Case("a comma and an empty last field", text({5: L[5].replace(",", ",1,", 1)[:-1]}), FIELDS.format(6, 6, "")),
    Case("the first record cut", text({1: cut(L[1])}), FIELDS.format(2, 4, "80,1000,cook,woman'")),
    Case("the last record cut", "\n".join([*L[:-1], cut(L[-1])]), FIELDS.format(N + 1, 4, "")),
    Case("one record cut", text({7: cut(L[7])}), FIELDS.format(8, 4, "")),
    Case("every record cut", "\n".join([L[0], *map(cut, L[1:])]), FIELDS.format(2, 4, "")),
    Case("a separator ends one line", text({3: L[3] + ","}), FIELDS.format(4, 6, "")),
    Case(
        "a separator ends every record",
        "\n".join([L[0], *(f"{line}," for line in L[1:])]),
        "the header does not end in a sep",
    ),
    Case("a separator ends every line", ",\n".join(L) + ",\n"),
    Case("a separator ends the header", text(header=L[0] + ","), r"line 2: 5 fields where the header \(line 1\) has 6"),
    Case(
        "nameless values at the end",
        ",\n".join(L) + ",x\n",
        "line 81: the header .* has no name for the last field, 'x'",
    ),
    Case(
        "a comment before the header",
        "# exported today\n" + text(),
        r"line 2: 5 fields where the header \(line 1\) has 1",
    ),
    Case("a comment among the records", text({9: "# nobody\n" + L[9]}), FIELDS.format(10, 1, "# nobody'")),
    Case("a comment with commas", text({9: "# a,b,c,d,e\n" + L[9]}), "numbers and text such as 'b'"),
    Case("a line broken in two", text({6: L[6].replace(",", "\n", 1)}), FIELDS.format(7, 1, "75'")),
    Case("two lines made one", text({6: L[6] + "," + L[7]}), FIELDS.format(7, 10, "")),
    Case("blank lines", "\n\n" + "\n\n".join(L) + "\n   \n\t\n"),
    Case(
        "a short record after quoted line breaks",
        text({2: L[2].replace("clerk", '"cl\n\n\nerk"'), 4: "1"}),
        "line 8: 1 fields",
    ),
    # Quotes.
    Case("an open quote", text({4: L[4].replace("cook", '"cook')}), "in the record that begins in line 5: "),
    Case("an open quote in the last record", text({N: L[N].replace(",", ',"', 1)}), "begins in line 81: "),
    Case(
        "text after a quote",
        text({4: L[4].replace("cook", '"co"ok')}),
        r"begins in line 5: .*a quote inside it is written",
    ),
    Case("a backslash before a quote", text({4: L[4].replace("cook", '"co\\"ok"')}), "begins in line 5"),
    Case(
        "two open quotes",
        text({4: L[4].replace("cook", '"cook'), 9: L[9].replace("smith", 'smith"')}),
        "line 5: the value 'cook,man,1.*as if it were the end of a record",
    ),
    Case("all quoted", "\n".join(",".join(f'"{field}"' for field in line.split(",")) for line in L)),
    Case("quotes and commas in values", text().replace("clerk", '"clerk, ""senior"""')),
    Case("line breaks in values", text().replace("clerk", '"clerk\r\nof\nthe house"')),
    Case("single quotes", text({4: L[4].replace("cook", "'co,ok'")}), "line 5: 6 fields where"),
    Case("blanks around all values", text().replace(",", "  ,  ").replace("\n", " \n ")),
    Case("blanks before quotes", text().replace(",clerk,", ', "clerk", ')),
    # Line ends, encodings, marks, packing.
    Case("CRLF", text(end="\r\n")),
    Case("CR", text(end="\r")),
    Case("no end of the last line", text().strip()),
    Case("UTF-8 with its mark", b"\xef\xbb\xbf" + text().encode()),
    Case("UTF-16", text().encode("utf-16"), r"no text in UTF-8 .*encoding='utf-16'"),
    Case("UTF-16, said", text().encode("utf-16"), options={"layout": {"encoding": "utf-16"}}),
    Case("UTF-16 without its mark", text().encode("utf-16-le"), "line 1: a NUL character"),
    Case(
        "Latin-1",
        (text().replace("smith", "schmied") * 1).replace("clerk", "pr\xeatre").encode("latin-1"),
        "line 3: no text in UTF-8 .*0xea.*encoding='cp1252'",
    ),
    Case(
        "Latin-1, said",
        text().replace("clerk", "pr\xeatre").encode("latin-1"),
        options={"layout": {"encoding": "latin-1"}},
    ),
    Case("Latin-1 in the last line", text().encode() + b"0,1,M\xfcller,man,1\n", "line 82: no text in UTF-8"),
    Case(
        "UTF-8 with its mark, said to be Latin-1",
        b"\xef\xbb\xbf" + text().encode(),
        "leave `encoding` out",
        {"layout": {"encoding": "latin-1"}},
    ),
    Case("an unknown encoding", text(), "encoding='utf-9': unknown encoding", {"layout": {"encoding": "utf-9"}}),
    Case("a NUL", text({8: L[8] + "\0"}), "line 9: a NUL character"),
    Case("nothing", b"", "is empty; expected a header"),
    Case("blank lines only", b"\n\n \n", "is empty; expected a header"),
    Case("a header only", L[0] + "\n", "no records"),
    Case("gzip", gzip.compress(text().encode())),
    Case("gzip cut short", gzip.compress(text().encode())[:-20], "damaged or cut short"),
    Case("gzip with a wrong sum", gzip.compress(text().encode())[:-8] + b"\0" * 8, "damaged or cut short"),
    # Separators and marks.
    Case("semicolons", text(sep=";"), r"the only column is 'id;age;job;sex;hired'; pass sep=';'"),
    Case("semicolons, said", text(sep=";"), options={"layout": {"sep": ";"}}),
    Case("tabs", text(sep="\t"), r"pass sep='\\t'"),
    Case("tabs, said", text(sep="\t"), options={"layout": {"sep": "\\t"}}),
    Case("blanks, said", text(sep=" "), options={"layout": {"sep": " "}}),
    Case("commas, said to be semicolons", text(), "pass sep=','", {"layout": {"sep": ";"}}),
    Case(
        "blanks",
        "\n".join(" ".join(f'"{field}"' for field in line.split(",")) for line in L),
        r"line 1: .*by ',' \(`sep`\)",
    ),
    Case("separators before all lines", "\n".join(f",{line}" for line in L), "column 1 of .* has no name"),
    Case("two separators", text(), "sep=';;' must be one character", {"layout": {"sep": ";;"}}),
    Case(
        "decimal commas",
        text(sep=";").replace("10", "10,"),
        "looks like a number with a sign",
        {"layout": {"sep": ";"}},
    ),
    Case("one mark for two", text(), "must differ", {"layout": {"decimal": ".", "thousands": "."}}),
    Case("thousands", text(sep=";").replace(";1", ";1,"), "age.* looks like a number", {"layout": {"sep": ";"}}),
    # Names.
    Case(
        "no header", "\n".join(L[1:]), "no column 'id', 'hired', 'sex'; its columns are '80', .*has it no header line"
    ),
    Case("a name twice", text(header="id,age,job,sex,age"), "line 1: more than one column named 'age'"),
    Case("a name twice but for blanks", text(header="id,age,job,sex, age "), "more than one column named 'age'"),
    Case("an id column twice", text(header="id,id,job,sex,hired"), "more than one column named 'id'"),
    Case("blanks around names", text(header=" id , age,job ,sex, hired ")),
    Case("names in capitals", text(header=L[0].upper()), "no column 'id', 'hired', 'sex'; its columns are 'ID'"),
    Case("nameless row numbers", "\n".join(["," + L[0], *NAMED]), r"column 1 of .* has no name \(''\).*index=False"),
    Case("nameless row numbers, left out", "\n".join(["," + L[0], *NAMED]), options={"drop": ("",)}),
    Case("row numbers by pandas' name", "\n".join(["Unnamed: 0," + L[0], *NAMED]), "has no name"),
    Case(
        "two nameless columns",
        "\n".join([",," + L[0], *("1," + line for line in NAMED)]),
        "more than one column named '' ",
    ),
]
"""Files of text."""

NUMBER = [k % 7 for k in range(N)]
DATES = [dt.date(2020, 1, 1 + k % 28) for k in range(N)]

TABLES = [
    # Names.
    *(
        Case(f"a column named {name}", columns(**{name: NUMBER}))
        for name in ("self", "index", "name", "columns", "table", "dtype")
    ),
    Case("a column named bias", columns(bias=NUMBER), "more than one feature would be named 'bias'"),
    Case("an indicator's name", columns(**{"job=cook": NUMBER}), "more than one feature would be named 'job=cook'"),
    Case(
        "two indicators of one name",
        columns(**{"a": ["b=c", "d", "e", "f"] * 20, "a=b": ["c", "d", "e", "f"] * 20}),
        "more than one feature would be named 'a=b=c'",
    ),
    Case("pandas' nameless index", columns(__index_level_0__=list(range(N))), "column 6 of .* has no name"),
    # Ids.
    Case("an id twice", columns(id=at({3: "5"})), "repeats the id '5'"),
    Case("an id twice but for blanks", columns(id=at({3: " 5 "})), "repeats the id '5'"),
    Case("no id", columns(id=at({3: None})), r"no id in 1 rows \(first: record 4\)"),
    Case("a blank id", columns(id=at({3: "  "})), r"no id in 1 rows \(first: record 4\)"),
    Case("an id of two lines", columns(id=at({3: "7\n7"})), r"line break in the id '7\\n7'"),
    Case("ids with zeros before them", columns(id=each(lambda name: name.zfill(5)))),
    Case("ids like words for missing", columns(id=at({3: "NA", 4: "None", 5: "nan"}))),
    Case("ids with decimals", columns(id=each(lambda name: name + ".0"))),
    Case("ids of 19 digits", columns(id=each(lambda name: name.zfill(3).rjust(19, "9")))),
    # Numbers.
    Case("missing numbers", columns(score=at({})(["", *NUMBER[1:]])), r"'score': 1.*missing='drop'"),
    Case(
        "missing numbers, left out", columns(score=[None, *NUMBER[1:]]), options={"missing": "drop"}, absent=(IDS[0],)
    ),
    Case("one ? among numbers", columns(score=["?", *NUMBER[1:]]), r"'score' holds numbers and text such as '\?'"),
    Case(
        "one ?, said",
        columns(score=["?", *NUMBER[1:]]),
        options={"na_values": ("?",), "missing": "drop"},
        absent=(IDS[0],),
    ),
    Case("one ?, a category", columns(score=["?", *map(str, NUMBER[1:])]), options={"categorical": ("score",)}),
    Case(
        "-999 for a missing number",
        columns(score=[-999, *NUMBER[1:]]),
        options={"na_values": ("-999",), "missing": "drop"},
        absent=(IDS[0],),
    ),
    Case(
        "an infinite number",
        columns(score=[float("inf"), *map(float, NUMBER[1:])]),
        "missing, NaN or infinite values .'score': 1",
    ),
    Case("decimals", columns(score=[Decimal(k) / 4 for k in NUMBER])),
    Case("numbers above 2^53", columns(score=[2**53 + k for k in NUMBER])),
    Case(
        "numbers above 2^53 as categories",
        columns(score=[2**53 + k for k in NUMBER]),
        options={"categorical": ("score",)},
    ),
    Case("numbers of 64 bits without sign", columns(score=[2**64 - 1 - k for k in NUMBER])),
    Case("true and false", columns(score=[k < 3 for k in NUMBER])),
    Case(
        "true, false and nothing",
        columns(score=[None, *(k < 3 for k in NUMBER[1:])]),
        options={"missing": "drop"},
        absent=(IDS[0],),
    ),
    Case(
        "true and ?",
        columns(score=["?", *(("true", "false")[k % 2] for k in NUMBER[1:])]),
        r"'score' holds true and false and text such as '\?'",
    ),
    Case(
        "percent",
        columns(score=[f"{k} %" for k in NUMBER]),
        "'score' holds text such as .* which looks like a number with a sign",
    ),
    Case(
        "currency",
        columns(score=[f"$1,{k}00" for k in NUMBER]),
        "'score' holds text such as .* which looks like a number with a sign",
    ),
    Case(
        "numbers with a hexadecimal one",
        columns(score=["0x10", *map(str, NUMBER[1:])]),
        "'score' holds text such as '0x10', which looks like a number",
    ),
    Case(
        "numbers with an underscore",
        columns(score=["1_0", *map(str, NUMBER[1:])]),
        "'score' holds text such as '1_0', which looks like a number",
    ),
    Case("a constant", columns(score=[7] * N)),
    Case("plus and minus nought", columns(score=[-0.0, 0.0] * (N // 2))),
    Case("nothing in a column", columns(score=[None] * N), r"'score': 80", {"missing": "drop"}),
    # Text.
    Case(
        "dates as text",
        columns(score=[day.isoformat() for day in DATES]),
        "'score' holds text such as '2020-01-01'.* which looks like a date",
    ),
    Case(
        "too many texts",
        columns(score=[f"word {k}x" for k in range(N)]),
        "'score' has 80 distinct text values, more than max_categories=50, such as 'word",
    ),
    Case(
        "nearly equal categories",
        columns(job=at({3: "Cook"})),
        "'job' holds '(C|c)ook' and '(C|c)ook', which differ only",
    ),
    Case("nearly equal categories, said", columns(job=at({3: "Cook"})), options={"categorical": ("job",)}),
    Case("blanks around categories", columns(job=at({3: " cook "}))),
    Case(
        "several columns that cannot be used",
        columns(a=["?", *NUMBER[1:]], b=[f"w{k}x" for k in range(N)], c=[f"{k}%" for k in NUMBER]),
        r"3 column\(s\) .*'a' holds.*'b' has 80.*'c' holds.*drop=\('a', 'b', 'c',\)",
    ),
    Case("they, left out", columns(a=["?", *NUMBER[1:]], b=[f"w{k}x" for k in range(N)]), options={"drop": ("a", "b")}),
    # Labels and groups.
    Case(
        "blanks around labels",
        columns(hired=[("no", " yes ")[k // 2 % 2] for k in range(N)]),
        options={"positive": ("yes",)},
    ),
    *(
        Case(
            f"the label {odd!r} beside 'yes'",
            columns(hired=at({3: odd})([("no", "yes")[k // 2 % 2] for k in range(N)])),
            "label column 'hired' holds 'yes' and|label column 'hired' holds .* and 'yes'",
            {"positive": ("yes",)},
        )
        for odd in ("yes.", "Yes", "YES", "yes ,")
    ),
    Case(
        "a label ? beside numbers",
        columns(hired=at({3: "?"})),
        "'hired' holds numbers and text such as '\\?'",
        {"positive": ("1",)},
    ),
    Case("a label that is missing", columns(hired=at({3: None})), "'hired': 1"),
    Case(
        "a label that is missing, left out", columns(hired=at({3: None})), options={"missing": "drop"}, absent=(IDS[3],)
    ),
    Case("one label", columns(hired=[1] * N), "holds only the value 1"),
    Case("three labels", columns(hired=[k % 3 for k in range(N)]), "exactly two values, but holds 3"),
    Case("a group called None", columns(sex=[("None", "man")[k % 2] for k in range(N)]), "'sex': 40, written 'None'"),
    Case(
        "a group called None, left out",
        columns(sex=[("None", "man", "woman", "man")[k % 4] for k in range(N)]),
        "holds the text 'None', which may be a value",
        {"missing": "drop"},
    ),
    Case(
        "a group called None, kept",
        columns(sex=[("None", "man")[k % 2] for k in range(N)]),
        options={"default_na": False},
    ),
    Case(
        "a group called NA, missing",
        columns(sex=at({2: "NA"})),
        options={"missing": "drop", "na_values": ("NA",)},
        absent=(IDS[2],),
    ),
    Case("nearly equal groups", columns(sex=at({1: "Man"})), "differ only in case"),
    Case("one group", columns(sex=["man"] * N), "holds only the value 'man'"),
    Case("a category called None", columns(job=at({1: "None"})), "'job': 1, written 'None'"),
]
"""Columns that are written as CSV and as Parquet."""

TYPED = [
    Case("dates", columns(score=DATES), "'score' holds dates of type date, such as datetime.date"),
    Case(
        "times with a zone",
        columns(score=pd.date_range("2020", periods=N, tz="UTC")),
        "'score' holds dates of type Timestamp",
    ),
    Case(
        "durations", columns(score=[dt.timedelta(days=k) for k in NUMBER]), "'score' holds durations of type Timedelta"
    ),
    Case("times of day", columns(score=[dt.time(k) for k in NUMBER]), "'score' holds times of day of type time"),
    Case("lists", columns(score=[[k] for k in NUMBER]), "'score' holds lists of type ndarray"),
    Case("structs", columns(score=[{"a": k} for k in NUMBER]), "'score' holds several values in one of type dict"),
    Case("bytes", columns(score=[b"x"] * N), "'score' holds bytes of type bytes, such as b'x'"),
    Case("dates, left out", columns(score=DATES), options={"drop": ("score",)}),
    Case(
        "dates and lists",
        columns(a=DATES, b=[[k] for k in NUMBER]),
        r"2 column\(s\) .*'a' holds dates.*'b' holds lists",
    ),
    Case("a group of dates", columns(sex=DATES), "'sex' holds dates"),
    Case("a label of dates", columns(hired=DATES), "'hired' holds dates"),
    Case(
        "a label of dates, said",
        columns(hired=DATES),
        "`positive`: column 'hired' holds dates",
        {"positive": ("2020-01-01",)},
    ),
    Case("a dictionary of numbers", columns(score=pd.Categorical(NUMBER))),
    Case("a dictionary of text", columns(job=each(str)(pd.Categorical(columns()["job"])))),
    Case("a dictionary of dates", columns(score=pd.Categorical(DATES)), "'score' holds dates"),
    Case(
        "whole numbers, one missing",
        columns(hired=pd.array([None, *columns()["hired"][1:]], "Int64")),
        options={"missing": "drop", "positive": ("1",)},
        absent=(IDS[0],),
    ),
    Case("small floats", columns(score=np.array(NUMBER, np.float16))),
    Case("digits as text", columns(score=[f"0{k}" for k in NUMBER])),
    Case("many digits as text", columns(score=[f"0{k}" for k in range(N)]), "80 numbers that are stored as text"),
    Case(
        "ids that are decimals",
        columns(id=each(float)),
        "column 'id' of .* holds double; save it as text or whole numbers",
    ),
    Case("ids that are whole numbers", columns(id=each(int))),
    Case("ids of 19 digits as numbers", columns(id=each(lambda name: int(name.zfill(3).rjust(19, "8"))))),
]
"""Columns of types that only Parquet keeps."""
