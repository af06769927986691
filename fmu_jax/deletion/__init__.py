r"""Deletion requests on your own table: a fair model that forgets people, with a certificate for each request.

The Python API is `train`, `delete`, `report` and `verify`; the command ``fmu-delete`` calls the same. Both need the
extra ``deletion``: in a checkout ``pip install '.[deletion]'``, with a wheel ``pip install 'FILE.whl[deletion]'``.

>>> import tempfile
>>> from pathlib import Path
>>> from fmu_jax import Objective, deletion
>>> lines = ["id,age,score,job,sex,paid"]
>>> for k in range(400):
...     lines.append(f"{k},{k * 37 % 50},{k * 11 % 7},{'abc'[k % 3]},{'mw'[k % 2]},{k * 7 % 50 > 20}")
>>> with tempfile.TemporaryDirectory() as folder:
...     table, store = Path(folder, "people.csv"), Path(folder, "store")
...     _ = table.write_text("\n".join(lines))
...     source = deletion.Table(table, id="id", label="paid", group="sex")
...     trained = deletion.train(store, source, objective=Objective(l2=1e-3, fairness=1.0), seed=0)
...     receipt = deletion.delete(store, ["7", "12"])
...     agree = all(outcome.agrees for outcome in deletion.verify(store).values())
...     page = deletion.report(store).name
>>> receipt.certificate["deleted"], agree, page
({'train': 2, 'test': 0}, True, 'report.html')

A store is a folder, readable by its owner only. ``ledger.sqlite`` in it is the one source of truth; everything else
follows it and is written again when it is missing or old.

Modules:
    people: identifiers, exact and salted.
    table: a user's table, read and encoded.
    ledger, chunks, waiting: the SQLite database; all SQL is there.
    model: the streamed model, stored and restored; the rows as ``Data``.
    guarantee: the noise of releases, what a series of them costs, and its words.
    records: certificates and the chain that they form.
    seal: a keyed digest of all that the ledger holds.
    exports: ``model.json`` and ``certificates/``.
    planning, training: from a table to a new store.
    requests: a deletion request, wholly done or not begun.
    verification: recompute everything and compare; evidence, ledger_checks and model_checks are its parts.
    page, curves: the report.
    command, flags, cli, ranges, words: the command line. files: atomic writes.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fmu_jax.deletion.page import report
    from fmu_jax.deletion.planning import Plan
    from fmu_jax.deletion.requests import Receipt, delete
    from fmu_jax.deletion.table import Table
    from fmu_jax.deletion.training import Trained, train
    from fmu_jax.deletion.verification import Outcome, verify
    from fmu_jax.deletion.words import UnwrittenError

__all__ = [
    "Outcome",
    "Plan",
    "Receipt",
    "Table",
    "Trained",
    "UnwrittenError",
    "delete",
    "report",
    "train",
    "verify",
]

_HOMES = {
    "report": "page",
    "Plan": "planning",
    **dict.fromkeys(("Receipt", "delete"), "requests"),
    "Table": "table",
    **dict.fromkeys(("Trained", "train"), "training"),
    **dict.fromkeys(("Outcome", "verify"), "verification"),
    "UnwrittenError": "words",
}


def __getattr__(name: str) -> Any:
    """Imports what is asked for when it is first asked for: a command's ``--help`` does not wait for JAX."""
    if name not in _HOMES:
        raise AttributeError(f"module 'fmu_jax.deletion' has no attribute {name!r}")
    return getattr(importlib.import_module(f"fmu_jax.deletion.{_HOMES[name]}"), name)
