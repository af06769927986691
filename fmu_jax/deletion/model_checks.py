"""Checks of a store's model: settings, accumulators, parameters, residual, measures, all computed again from the rows.

Each takes what there is to see, returns what it found in words, and raises when two things disagree.
"""

import jax
import jax.numpy as jnp
import numpy as np

from fmu_jax import FitResult, privacy, stream
from fmu_jax.data import cell_counts
from fmu_jax.deletion import model, records
from fmu_jax.deletion.evidence import Seen, agree
from fmu_jax.removal.newton import fair_newton
from fmu_jax.rounding import gradient_with_error


def check_settings(seen: Seen) -> str:
    """The state is of the store's settings."""
    state, settings = seen.state, seen.settings
    for name, stored, said in (
        *((name, getattr(state, name), getattr(settings, name)) for name in ("sigma", "delta", "budget")),
        *((name, getattr(state.objective, name), getattr(settings, name)) for name in ("l2", "fairness")),
    ):
        agree(float(stored) == said, f"the state has {name} {float(stored):g}, the settings {said:g}")
    pairs = zip(jax.tree.leaves(state.objective), jax.tree.leaves(settings.objective), strict=True)
    agree(all(np.array_equal(a, b) for a, b in pairs), "the state is of another penalty than the settings")
    return f"sigma {settings.sigma:g}, delta {settings.delta:g}, budget {settings.budget:g}"


def check_accumulators(seen: Seen) -> str:
    """The accumulators are those of the remaining rows, to rounding."""
    anchored = FitResult(seen.state.anchor, jnp.ones((), bool), jnp.zeros(()), jnp.zeros((), jnp.int32))
    again = model.start(seen.settings, anchored, seen.train, seen.state.noise)
    stored, fresh = seen.state.moments, again.moments
    agree(np.array_equal(stored.counts, fresh.counts), f"the state counts {stored.counts}, the rows {fresh.counts}")
    agree(np.array_equal(stored.counts, cell_counts(seen.train)), "the state counts other rows")
    allowed = jax.tree.map(lambda a, b: float(a + b), stored.errors, fresh.errors)
    worst = 0.0
    for name in ("sums", "gradient", "curvature", "reach", "gram"):
        kind = name if name in ("sums", "gradient") else "matrices"
        off = float(jnp.linalg.norm((getattr(stored, name) - getattr(fresh, name)).ravel()))
        most = getattr(allowed, kind)
        agree(off <= most, f"{name} is {off:.3g} off where rounding allows {most:.3g}")
        worst = max(worst, off)
    agree(seen.state.row_norm >= again.row_norm, "a row is longer than the state says")
    return f"off by at most {worst:.2g}"


def check_parameters(seen: Seen) -> str:
    """The published parameters are the Newton step from the anchor for what remains, computed anew."""
    train, state = seen.train, seen.state
    expected = fair_newton(seen.settings.objective, state.anchor, train, train, noise=state.noise).params
    off, size = float(jnp.linalg.norm(state.params - expected)), float(jnp.linalg.norm(expected))
    agree(off <= 1e-7 * max(size, 1.0), f"the parameters are {off:.3g} away from those of the remaining rows")
    return f"off by {off:.2g} of {size:.3g}"


def check_residual(seen: Seen) -> str:
    """The exact gradient of the remaining objective is within the bound, and the bound costs what is said."""
    state, settings = seen.state, seen.settings
    gradient, margin = gradient_with_error(settings.objective, state.params, seen.train, state.noise)
    least = float(jnp.linalg.norm(gradient) - margin)
    bound = float(state.residual_bound)
    agree(least <= bound, f"the residual is at least {least:.4g}, the state bounds it by {bound:.4g}")
    epsilon = float(privacy.certified_epsilon(bound, settings.sigma, settings.delta))
    agree(
        np.isclose(float(state.epsilon), epsilon, rtol=1e-12), f"the bound costs {epsilon:.6g}, not {state.epsilon:.6g}"
    )
    agree(not bool(stream.needs_refresh(state)), f"epsilon {epsilon:.4g} passes the budget {settings.budget:g}")
    said, now = seen.said[-1], records.spent(settings, state)
    same = all(said[name] == value for name, value in now.items())
    agree(same, f"the last certificate says epsilon {said['epsilon']}, the state {now['epsilon']}")
    return f"{max(least, 0.0):.3g}, at most {bound:.3g}, epsilon {epsilon:.3g} of {settings.budget:g}"


def check_measures(seen: Seen) -> str:
    """Accuracy, fairness and its interval are what the last certificate says."""
    found, said = model.assess(seen.state, seen.test), seen.said[-1]["after"]
    differing = [name for name, value in found.items() if said[name] != value]
    agree(not differing, f"the last certificate says other than the held-out people do: {', '.join(differing)}")
    return f"{len(found)} of {int(seen.test.weight.sum())} held-out people"
