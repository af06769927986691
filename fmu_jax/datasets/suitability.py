"""Finds out which columns of a user's table can be used as they are, and explains why others cannot."""

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence

import pandas as pd

from fmu_jax.datasets.columns import TRUTH, Missing, Unsuitable, is_number, number_reader, plain, short
from fmu_jax.datasets.reading import listed, require_columns

NAMELESS = re.compile(r"|Unnamed: \d+(\.\d+)?|__index_level_\d+__")
"""Names of columns that have none: in a CSV file, as pandas reads such a file, and as it writes Parquet."""
_MONTH = (
    r"(jan(uary)?|feb(ruary)?|mar(ch)?|apr(il)?|may|june?|july?|aug(ust)?|sept?(ember)?|oct(ober)?|nov(ember)?|"
    r"dec(ember)?)\.?"
)
_NUMBER = "a number with a sign, a unit or other marks (write plain numbers; see `decimal` and `thousands`"
_LOOKS_LIKE = {
    # Signs, blanks and marks may surround and group the digits, as in -$1,234.50, (12 %) and 12-; and programs write
    # 0x1F and 1.5D+03.
    _NUMBER: re.compile(
        r"[-+\u2212(\s$€£¥]*\d[\d.,'’_\s]*([eE][-+]?\d+)?[-\u2212\s%)$€£¥]*"
        r"|0[xX][0-9a-fA-F]+|[-+]?[\d.]+[dD][-+]\d+"
    ),
    "a date (make it a number, as by its year": re.compile(
        r"\d{1,4}([-/.])\d{1,2}\1\d{1,4}([T\s]\s*\d{1,2}:\d{2}.*)?"
        rf"|\d{{1,2}}[-\s./]*{_MONTH}[-\s./,]*\d{{2,4}}([:\s].*)?|{_MONTH}[-\s]+\d{{1,4}}(,?\s*\d{{4}})?",
        re.ASCII | re.IGNORECASE,
    ),
    "a time of day (make it a number, as by its hour": re.compile(
        r"\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?(\s*[ap]\.?m\.?)?|\d{1,2}\s*[ap]\.?m\.?", re.ASCII | re.IGNORECASE
    ),
}
_UNIT = re.compile(r"[-+]?\d+([.,]\d+)?\s*([^\W\d_]+)")
"""A number and its unit."""


def named(table: pd.DataFrame, wanted: Sequence[str], *, drop: Sequence[str], source: str) -> pd.DataFrame:
    """The table under text names, without the columns of `drop`, its rows numbered from 0.

    Raises:
      ValueError: There is no row; a name is missing, occurs twice, or is none.
    """
    names = [str(name) for name in table.columns]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"{source} has more than one column named {listed(repeated)}; rename the copies")
    look = [visible(name) for name in names]
    twins = [name for name, shown in zip(names, look, strict=True) if look.count(shown) > 1]
    if twins:
        raise ValueError(f"{source} has columns whose names look the same: {', '.join(map(ascii, twins))}; rename one")
    require_columns(names, wanted, source=source)
    if not len(table):
        raise ValueError(f"{source} has no rows")
    nameless = [name for name in names if NAMELESS.fullmatch(name) and name not in wanted]
    if nameless:
        raise ValueError(
            f"column {names.index(nameless[0]) + 1} of {source} has no name ({listed(nameless)}), as row numbers have "
            f"that were saved with the table; pass drop=({nameless[0]!r},), save it without them (pandas: index=False, "
            "R: row.names=FALSE), or give it a name"
        )
    table = table.set_axis(names, axis=1).reset_index(drop=True)
    return table.drop(columns=list(drop))


def plain_columns(
    table: pd.DataFrame, words: Missing, *, most: Mapping[str, int | None], source: str
) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """The columns as ``plain`` makes them, and by column the text that was taken for missing.

    Args:
      table: The columns to use.
      words: Which entries are missing.
      most: The columns whose text is looked at, and how many categories each may have; None for a label or a group.
      source: Name of the table for messages.

    Raises:
      ValueError: Columns hold neither numbers nor text, or text that is probably something else; names all of them.
    """
    columns, found, taken = {}, {}, {}
    for name in map(str, table):
        try:
            column = columns[name] = plain(table[name], words)
        except Unsuitable as error:
            found[name] = f"holds {error} (make it a number, as a date by its year, or text of few values)"
            continue
        lost = table[name][column.isna().to_numpy(bool) & table[name].notna().to_numpy(bool)]
        taken[name] = sorted({value.strip() for value in lost if isinstance(value, str) and value.strip()})
        texts = [] if is_number(column) else sorted(column.dropna().unique())
        doubt = doubts(texts, max_categories=most[name]) if texts and name in most else None
        if doubt:
            found[name] = doubt
    if found:
        droppable = [name for name in found if most.get(name, 0) is not None]
        raise ValueError(
            f"{source} has {len(found)} column(s) that cannot be used as they are: "
            + "; ".join(f"{name!r} {doubt}" for name, doubt in found.items())
            + (f". To leave columns out, pass drop=({listed(droppable, len(found))},)" if droppable else "")
        )
    return pd.DataFrame(columns), {name: words for name, words in taken.items() if words}


def alike(values: Iterable[str]) -> tuple[str, str] | None:
    """Two texts that differ only in case, blanks, what is invisible, or ``. , ;`` at the end; None if there are none.

    >>> alike(["no", "yes", "Yes."]), alike(["A", "A+", "a-", "<=50K", ">50K"])
    (('yes', 'Yes.'), None)
    """
    originals: dict[str, str] = {}
    for value in values:
        key = " ".join(visible(unicodedata.normalize("NFKC", value)).casefold().split()).rstrip(" .,;")
        if key in originals:
            return originals[key], value
        originals[key] = value
    return None


def visible(text: str) -> str:
    r"""Text in its composed form, without what nobody sees: joiners, soft hyphens, byte order marks.

    >>> visible("e\u0301\u200b") == "\u00e9"
    True
    """
    return "".join(letter for letter in unicodedata.normalize("NFC", text) if unicodedata.category(letter) != "Cf")


def doubts(values: Collection[str], *, max_categories: int | None = None) -> str | None:
    """Why text cannot be taken as it is for categories, and what to do; None if it can.

    Args:
      values: The distinct texts of a column, at least one.
      max_categories: The most that a feature may have, and then they must differ; None for a label or a group.
    """
    read = number_reader()
    as_they_are = "correct it, or name the column in categorical=(...) to take each text for a category"
    digits = [value for value in values if read(value) is not None]
    truths = [value for value in values if value in TRUTH]
    words = [value for value in values if value not in {*digits, *truths}]
    for what, pattern in _LOOKS_LIKE.items():
        found = [value for value in words if pattern.fullmatch(value)]
        if found:
            return f"holds text such as {_few(found)}, which looks like {what}; {as_they_are})"
    units = {unit[2] if (unit := _UNIT.fullmatch(value)) else None for value in words}
    if len(words) > 2 and len(units) == 1 and None not in units:
        return f"holds text such as {_few(words)}, which looks like {_NUMBER}; {as_they_are})"
    if len(list(filter(None, (digits, truths, words)))) > 1:
        odd = words or truths
        return (
            f"holds {'numbers' if digits else 'true and false'} and text such as {_few(odd)} (pass it in "
            f"na_values=({odd[0]!r},) if it means that the value is missing, {as_they_are})"
        )
    if max_categories is None:
        return None
    if len(values) > max_categories and digits:
        return f"has {len(values)} numbers that are stored as text, such as {_few(digits)} (store them as numbers)"
    if len(values) > max_categories:
        return (
            f"has {len(values)} distinct text values, more than max_categories={max_categories}, such as "
            f"{_few(values)} (group its values, or raise max_categories)"
        )
    return differs_little(values)


def differs_little(values: Iterable[str]) -> str | None:
    """What to say of two values that are probably one; None if there are none."""
    pair = alike(values)
    show = ascii if pair and visible(pair[0]) == visible(pair[1]) else repr
    return pair and (
        f"holds {show(pair[0])} and {show(pair[1])}, which differ only in case, blanks, what is invisible or a mark at "
        "the end (make them one, or name the column in categorical=(...) to keep both)"
    )


def _few(values: Collection[str]) -> str:
    return ", ".join(short(value) for value in list(values)[:3])
