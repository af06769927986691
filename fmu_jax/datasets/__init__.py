"""Data sets for fair unlearning: ``load`` a named one, read your own with ``from_csv``, or draw ``synthetic`` rows.

Modules: ``registry`` (load); ``bundled`` with ``compas`` and ``adult``; ``hsls`` with its variable names and codes in
``hsls_codes``; ``simulation`` (synthetic); ``tabular`` (a user's table); ``margins`` (of the KLoM benchmark).
These use ``split`` (the result), ``table`` (encode, split, scale), ``grouping``, ``parts`` (of a table) and ``reading``
(files and their errors).
"""

from fmu_jax.datasets.margins import load_margins as load_margins
from fmu_jax.datasets.registry import GROUPS as GROUPS
from fmu_jax.datasets.registry import load as load
from fmu_jax.datasets.simulation import synthetic as synthetic
from fmu_jax.datasets.split import Split as Split
from fmu_jax.datasets.tabular import from_csv as from_csv
from fmu_jax.datasets.tabular import from_table as from_table
