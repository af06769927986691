"""Rows of the experiments on gradients, of a finished run or as they are published."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

from scripts.harness import store
from scripts.harness.experiment import Row


def read(path: Path, flag: str, script: str) -> list[Row]:
    """The rows of a finished run folder, or of a published ``.csv.gz``, of one script.

    Args:
        path: The folder, or the file.
        flag: The flag that named it, for errors.
        script: The script whose rows they must be, such as "pags_robustness".

    Raises:
        ValueError: If there is no finished run, it is damaged, or its rows are of another script.
    """
    command = f"python -m scripts.{script.replace('_', '.', 1)}"
    try:
        table = published(path) if path.is_file() else store.read_rows(path)
    except FileNotFoundError as error:
        raise ValueError(f"{flag}: {error}; run {command} first") from None
    for row in table:
        found = row.get("config.experiment", "another kind of run").removeprefix("scripts.")  # As it was spelled once.
        if found != script:
            raise ValueError(f"{flag}: {path} holds rows of {found}, not of {script}")
    if not table:
        raise ValueError(f"{flag}: {path} holds no rows; run {command} again")
    return table


def published(path: Path) -> list[Row]:
    """The rows of a ``.csv.gz`` as `scripts.reproduce` publishes them; cells get the types that they look like.

    Raises:
        ValueError: If it is no such file.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            return [{name: _value(text) for name, text in row.items()} for row in csv.DictReader(file)]
    except (OSError, EOFError, ValueError, TypeError, csv.Error) as error:
        raise ValueError(f"{path} is no .csv.gz of rows, or is damaged ({error}); name a run folder instead") from error


def _value(text: str) -> Any:
    if text in ("", "True", "False"):
        return {"": None, "True": True, "False": False}[text]
    if text.startswith("["):
        return json.loads(text)
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
