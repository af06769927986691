"""``load``: every named data set behind one call."""

from collections.abc import Sequence
from pathlib import Path

from fmu_jax.datasets.adult import ADULT
from fmu_jax.datasets.bundled import load_bundled
from fmu_jax.datasets.compas import COMPAS
from fmu_jax.datasets.grouping import attributes_of
from fmu_jax.datasets.hsls import GROUPS as HSLS_GROUPS
from fmu_jax.datasets.hsls import load_hsls
from fmu_jax.datasets.reading import listed
from fmu_jax.datasets.simulation import synthetic
from fmu_jax.datasets.split import Split

BUNDLED = {bundled.name: bundled for bundled in (COMPAS, ADULT)}
GROUPS = {
    **{name: tuple(bundled.groups) for name, bundled in BUNDLED.items()},
    "hsls": HSLS_GROUPS,
    "synthetic": ("group",),
}
"""The protected attributes of each named data set."""

OPTIONS = {
    "compas": ("scaling", "group_feature", "min_group_rows", "small_groups"),
    "adult": ("scaling", "group_feature", "min_group_rows", "small_groups"),
    "hsls": ("scaling", "group_feature", "min_group_rows", "small_groups", "missing", "features"),
    "synthetic": ("n", "d", "group_share", "disparity"),
}
"""The further options of ``load`` that each named data set understands."""


def load(
    name: str,
    *,
    group: str | Sequence[str],
    seed: int,
    path: str | Path | Sequence[str | Path] | None = None,
    test_fraction: float = 0.2,
    **options,
) -> Split:
    """Loads a named data set, split at random and scaled so that train rows have norm at most 1 before the bias.

    ==========  ============  =========  ==========================================================
    name        group         rows       label
    ==========  ============  =========  ==========================================================
    compas      race, gender  5,278      charged again (ProPublica's filter, two races)
    adult       race, gender  46,447     income above 50,000 dollars (White and Black)
    hsls        race, sex     your file  9th-grade mathematics score above the median (needs `path`)
    synthetic   group         `n`        drawn from a logistic model
    ==========  ============  =========  ==========================================================

    Center and scale are computed on the train rows only, so a test row may have a norm above 1. The protected
    attribute stays a feature, as in the paper's code, unless ``group_feature=False``.

    Args:
      name: "compas", "adult", "hsls" or "synthetic".
      group: The protected attribute, or a list of several for a group of each combination of their values, such as
        ``["race", "gender"]``; "gender" and "sex" mean the same, whichever the data set says.
      seed: Seed of the split, and of the draw for "synthetic" (``numpy.random.default_rng``).
      path: For "hsls": a CSV file, a folder of CSV files, or several files.
      test_fraction: Share of test rows, in (0, 1); there are ``ceil(test_fraction n)``.
      **options: For "compas", "adult", "hsls": `scaling` ("standardise", "minmax", "maxnorm"; without it the paper's
        choice), `group_feature`, `min_group_rows` and `small_groups` (see ``from_csv``); for "hsls" also `missing` and
        `features` (see ``load_hsls``); for "synthetic": `n` (10,000), `d` (20), `group_share`, `disparity` (see
        ``synthetic``).

    Returns:
      The ``Split``.

    Raises:
      ValueError: Unknown data set, group or option; a damaged file; a bad value.
      FileNotFoundError: `path` does not exist, or a bundled file is missing.

    >>> split = load("compas", group="race", seed=0)
    >>> split.train.x.shape, split.test.x.shape, split.group_values
    ((4222, 7), (1056, 7), ('African-American', 'Caucasian'))

    >>> load("compas", group=["race", "gender"], seed=0).group_values[:2]
    ('African-American, Female', 'African-American, Male')

    Source: Oesterling et al. 2024, experiments, for the data sets and their preparation.
    """
    if not isinstance(seed, int) or seed < 0:
        raise ValueError(f"`seed` must be a whole number >= 0, got {seed!r}")
    if name not in GROUPS:
        raise ValueError(f"unknown data set {name!r}; available: {listed(GROUPS)} (for your own file: from_csv)")
    attributes = tuple(_known_as(attribute, GROUPS[name]) for attribute in attributes_of(group))
    for attribute in attributes_of(attributes):
        if attribute not in GROUPS[name]:
            raise ValueError(f"unknown group {attribute!r} of {name!r}; available: {listed(GROUPS[name])}")
    unknown = sorted(set(options) - set(OPTIONS[name]))
    if unknown:
        raise ValueError(f"unknown option {listed(unknown)} of {name!r}; available: {listed(OPTIONS[name])}")
    if name == "hsls":
        return load_hsls(path, group=attributes, seed=seed, test_fraction=test_fraction, **options)
    if path is not None:
        raise ValueError(f"{name!r} takes no path (got {path!r}); to read your own file use from_csv")
    if name == "synthetic":
        n, d = options.pop("n", 10_000), options.pop("d", 20)
        return synthetic(n, d, seed=seed, test_fraction=test_fraction, **options)
    return load_bundled(BUNDLED[name], group=attributes, seed=seed, test_fraction=test_fraction, **options)


def _known_as(attribute: str, available: Sequence[str]) -> str:
    """An attribute under the data set's own name for it."""
    other = {"gender": "sex", "sex": "gender"}.get(attribute, attribute)
    return other if other in available else attribute
