"""Deletion requests on one's own table: what ``fmu_jax.deletion.command`` is made of.

A store is a folder, readable by its owner only. ``ledger.sqlite`` in it is the one source of truth; everything else
follows it and is written again when it is missing or old.

Modules:
    people: identifiers, exact and salted.
    table: a user's table, read and encoded.
    ledger: the SQLite database; all SQL is here.
    model: the streamed model, stored and restored; the rows as ``Data``.
    records: certificates and the chain that they form.
    seal: a keyed digest of all that the ledger holds.
    exports: ``model.json`` and ``certificates/``.
    training: from a table to a new store.
    requests: a deletion request, wholly done or not begun.
    verification: recompute everything and compare; evidence, ledger_checks and model_checks are its parts.
    page: the report.
"""
