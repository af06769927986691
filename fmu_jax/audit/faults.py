"""Audits that can fail: which of them catches which planted fault, and do they leave honest mechanisms alone?

Audits compute lower bounds at 95 % of what a mechanism costs, and the p-value of a test that it is nearer to retraining
than an untouched model. An audit raises an alarm if a bound exceeds the claim, or if that test cannot reject at 1 %.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jaxtyping import Array

from fmu_jax.audit.epsilon import empirical_epsilon
from fmu_jax.audit.gaussian import empirical_mu
from fmu_jax.audit.mechanisms import DELTA, Samples, mechanism, one_run
from fmu_jax.audit.relative import relative_test

BOUNDS = ("gaussian", "histogram", "kernel", "grid")
"""Audits that bound from below what a mechanism costs; ``gaussian`` is the best of several."""
GAUSSIAN = ("mean_difference", "fisher", "principal", "spread", "likelihood_ratio")
"""Statistics that look at means and variances."""
PAPERS = ("smooth", "rounded", "stream")
"""Mechanisms of the paper's scheme; all others are of a release."""
HONEST = ("honest", "at_admitted", "smooth")
"""Mechanisms whose claim is true."""
MECHANISMS = {
    "honest": "release as it is: removed, refreshed when due, fresh noise each time",
    "at_admitted": "release at its limit: as far from retraining as it may be",
    "no_removal": "release, but nothing is removed",
    "step_0.9": "release, but a tenth of the removal is left out",
    "half_step": "release, but half of the removal is left out",
    "wrong_sign": "release, but the removal goes the wrong way",
    "reused_noise": "release, but the same noise is added every time",
    "half_scale": "release at its limit, but with half the noise",
    "smooth": "the paper's scheme as it is",
    "rounded": "the paper's scheme, its parameters rounded to four decimals",
    "stream": "the paper's scheme as a stream that refreshes on its own epsilon",
}
"""What each mechanism does."""
AUDITS = {
    "gaussian": ("means and variances", "Compares averages and spreads along a few directions; catches what moves a "
                 "model."),
    "histogram": ("histogram", "Compares the densities along the direction that tells most; catches gaps in them."),
    "kernel": ("kernel", "Compares densities in all directions at once; catches what no single direction shows."),
    "grid": ("last digits", "Looks at the digits that are printed last; catches rounding."),
    "one_run": ("one run", "Bets on which of 30 planted rows were inside of a single model; catches what is left in "
                "it."),
    "relative": ("nearer to retraining?", "Asks whether unlearning came nearer to retraining at all; catches removals "
                 "that did nothing."),
}  # fmt: skip
"""Title and description of each audit."""


def bounds(scheme: str, samples: Samples, key: jax.Array) -> dict[str, float]:
    """Lower bounds at 95 %, all at once: of mu for a release, of epsilon for the paper's scheme."""
    if scheme == "release":
        by_test = empirical_mu(samples.unlearned, samples.retrained, key=key).by_test
    else:
        by_test = empirical_epsilon(samples.unlearned, samples.retrained, delta=DELTA, key=key).by_test
    found = {name: float(bound) for name, bound in by_test.items()}
    row = {"claim": samples.claim, "gaussian": max(found[name] for name in GAUSSIAN)}
    row |= {name: found[name] for name in BOUNDS[1:]}
    if samples.trained is not None:
        few = slice(1000)
        test = relative_test(samples.unlearned[few], samples.retrained[few], samples.trained[few])
        row["relative_p"] = float(test.p_value)
    return row


def caught_by(found: dict[str, float]) -> list[str]:
    """The audits that flag: a lower bound above the claim, or unlearned models not shown to be nearer at 1 %."""
    caught = [name for name in (*BOUNDS, "one_run") if found.get(name, 0.0) > found["claim"]]
    return caught + ["relative"] * (found.get("relative_p", 0.0) > 0.01)


def false_alarms(scheme: str, draw: Callable[..., Samples], key: jax.Array, *, models: int, repeats: int) -> int:
    """How many of so many audits of a mechanism flag.

    Args:
      scheme: Whose claim is audited, "release" or the paper's.
      draw: Draws models of both worlds, given a key.
      key: PRNG key of all draws.
      models: Number of models of each world, in each audit.
      repeats: Number of audits.
    """
    flags = 0
    for again in jax.random.split(key, repeats):
        found = bounds(scheme, draw(again, models), jax.random.fold_in(again, 1))
        flags += max(found[name] for name in BOUNDS) > found["claim"]
    return flags


def audit_mechanism(name: str, *, models: int, alarms: int, seed: int, key: Array) -> dict[str, Any]:
    """The lower bounds at 95 % that the audits find on a mechanism's mu or epsilon, and which of them catch it.

    Args:
      name: A mechanism of ``MECHANISMS``.
      models: Number of models of each world.
      alarms: Number of further audits of an honest mechanism, in which no alarm should be raised.
      seed: Seed of the single model of ``one_run``.
      key: PRNG key of all else.

    Returns:
      A row: ``scheme`` ("release", whose claim is a mu, or "paper", an epsilon), ``honest``, ``claim``, the bound of
      each audit, ``relative_p`` (the p-value of the test whether unlearned models are nearer to retrained ones than
      untouched ones), ``caught_by`` (names, with commas between), and for honest mechanisms ``false_alarms``.

    Raises:
      ValueError: Another mechanism.
    """
    if name not in MECHANISMS:
        raise ValueError(f"unknown mechanism {name!r}; known: {', '.join(MECHANISMS)}")
    scheme = "paper" if name in PAPERS else "release"
    draw = mechanism(name)
    found = bounds(scheme, draw(key, models), jax.random.fold_in(key, 1))
    if scheme == "release":
        found["one_run"] = one_run(name, seed=seed).mu
    honest = name in HONEST
    row = {"scheme": scheme, "honest": honest, "caught_by": ", ".join(caught_by(found))} | found
    if honest:
        again = jax.random.fold_in(key, 2)
        row["false_alarms"] = false_alarms(scheme, draw, again, models=models, repeats=alarms)
    return row


def lines(table: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For readers: a line for each mechanism, what it claims, what each audit shows, and which audits caught it.

    Args:
      table: Rows of ``audit_mechanism``, with ``mechanism`` and ``claim``.

    >>> lines([{"mechanism": "half_step", "claim": 1.0, "caught_by": "relative", "relative_p": 0.5}])[0]["caught by"]
    'nearer to retraining?'
    """
    found = []
    for row in table:
        line = {"mechanism": MECHANISMS[row["mechanism"]], "claims": row["claim"]}
        line |= {title: row.get(name) for name, (title, _) in AUDITS.items() if name != "relative"}
        caught = [AUDITS[name][0] for name in (row["caught_by"] or "").split(", ") if name]
        found.append(line | {"p-value": row.get("relative_p"), "caught by": ", ".join(caught) or "nothing"})
    return found
