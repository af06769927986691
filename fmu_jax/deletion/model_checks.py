"""Checks of a store's model: settings, accumulators, parameters, distance, release, measures, computed from the rows.

Each check takes the evidence, returns its finding in words, and raises if two things disagree.
"""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from fmu_jax import FitResult, Removal, fit, releases
from fmu_jax.data import cell_counts
from fmu_jax.deletion import guarantee, model
from fmu_jax.deletion.evidence import Evidence, agree
from fmu_jax.removal.newton import fair_newton

_UNLIKELY = 1e-12
"""Chance that the noise of an honest release is found too small or too large."""
_SOLVED = 1e-7
"""How far a retrained model, computed anew, may be off for want of solver steps, in units of its size."""


def check_settings(evidence: Evidence) -> str:
    """The state is of the store's settings."""
    state, settings = evidence.state, evidence.settings
    for name, stored, setting in (
        *((name, getattr(state.objective, name), getattr(settings, name)) for name in ("l2", "fairness")),
        ("noise", jnp.max(jnp.abs(state.noise)), 0.0),
    ):
        agree(float(stored) == setting, f"the state has {name} {float(stored):g}, the settings {setting:g}")
    pairs = zip(jax.tree.leaves(state.objective), jax.tree.leaves(settings.objective), strict=True)
    agree(all(np.array_equal(a, b) for a, b in pairs), "the state is of another penalty than the settings")
    scale = guarantee.scale_for(settings.mu, settings.releases, settings.admitted)
    agree(settings.scale == scale, f"the noise's scale is {settings.scale:.6g}, the planned series needs {scale:.6g}")
    return f"noise of scale {scale:.3g} for an admitted distance of {settings.admitted:.3g}"


def check_accumulators(evidence: Evidence) -> str:
    """The accumulators are those of the remaining rows, to rounding."""
    anchored = FitResult(evidence.state.anchor, jnp.ones((), bool), jnp.zeros(()), jnp.zeros((), jnp.int32))
    again = model.start(evidence.settings, anchored, evidence.train)
    stored, fresh = evidence.state.moments, again.moments
    agree(np.array_equal(stored.counts, fresh.counts), f"the state counts {stored.counts}, the rows {fresh.counts}")
    agree(np.array_equal(stored.counts, cell_counts(evidence.train)), "the state counts other rows")
    allowed = jax.tree.map(lambda a, b: float(a + b), stored.errors, fresh.errors)
    worst = 0.0
    for name in ("sums", "gradient", "curvature", "reach", "gram"):
        kind = name if name in ("sums", "gradient") else "matrices"
        off = float(jnp.linalg.norm((getattr(stored, name) - getattr(fresh, name)).ravel()))
        most = getattr(allowed, kind)
        agree(off <= most, f"{name} is {off:.3g} off where rounding allows {most:.3g}")
        worst = max(worst, off)
    agree(evidence.state.row_norm >= again.row_norm, "a row is longer than the state says")
    return f"off by at most {worst:.2g}"


def check_parameters(evidence: Evidence) -> str:
    """The parameters without noise are the Newton step from the anchor for what remains, computed anew."""
    train, state = evidence.train, evidence.state
    expected = fair_newton(evidence.settings.objective, state.anchor, train, train, noise=None).params
    off, size = float(jnp.linalg.norm(state.params - expected)), float(jnp.linalg.norm(expected))
    agree(off <= 1e-7 * max(size, 1.0), f"the parameters are {off:.3g} away from those of the remaining rows")
    return f"off by {off:.2g} of {size:.3g}"


def check_distance(evidence: Evidence) -> str:
    """The model is as near to the retrained one as it is admitted: certified anew from the rows, and seen.

    Three numbers: the certified distance that the stored state gives, the one that all remaining rows give, and the
    distance to a model that is retrained now.
    """
    settings, train, params = evidence.settings, evidence.train, evidence.state.params
    shape = guarantee.shape_of(np.asarray(train.x), settings.l2)
    admitted = guarantee.admitted(settings, max(evidence.contents[-1]["series"]["released"], 1))
    stored = guarantee.distance(evidence.state, shape)
    agree(stored <= admitted, f"the model is certified within {stored:.4g} only, and {admitted:.4g} is admitted")
    found = fit(settings.objective, train, init=params, throw=False)
    agree(found.converged, "the model cannot be retrained: the solver does not converge")
    apart = np.asarray(params - found.params)
    true = float(np.sqrt(apart @ shape @ apart))
    solved = _SOLVED * float(np.linalg.norm(found.params)) * np.sqrt(np.trace(shape))
    agree(true <= stored + solved, f"the model is {true:.4g} away from the retrained one, certified was {stored:.4g}")
    here = jnp.zeros(len(train.y), bool)
    removal = Removal(params, train, here, params, found.converged, found.grad_norm, found.steps)
    again = float(releases.distance_to_retrained(settings.objective, removal, shape=jnp.asarray(shape)))
    agree(true <= again + solved, f"the model is {true:.4g} away from the retrained one, the rows certify {again:.4g}")
    return f"{true:.2g}, certified {stored:.2g} (from all rows {again:.2g}), admitted {admitted:.2g}"


def check_release(evidence: Evidence) -> str:
    """What is published is the model with noise of the stated kind: on its grid, and of a likely size.

    The noise itself is kept nowhere, so that nothing more can be checked. A model of the training has none.
    """
    settings, params = evidence.settings, np.asarray(evidence.state.params)
    number = evidence.contents[-1]["series"]["released"]
    if not number:
        agree(np.array_equal(evidence.released, params), "the model of the training is published with something added")
        return "the model of the training, without noise"
    agree(np.isfinite(evidence.released).all(), "the published parameters are no numbers")
    shape = guarantee.shape_of(np.asarray(evidence.train.x), settings.l2)
    # The grid of the release, whose spacing depends on scale and shape; a held-out deletion changes neither.
    spacing = 2.0 ** (np.floor(np.log2(settings.scale / np.sqrt(np.trace(shape)))) - 9)  # Or twice that.
    agree(
        (np.round(evidence.released / spacing) * spacing == evidence.released).all(),
        "what is published is not on the grid",
    )
    noise = np.linalg.cholesky(shape).T @ (evidence.released - params) / settings.scale
    size, d = float(noise @ noise), len(noise)
    low, high = (float(scipy.special.chdtri(d, tail)) for tail in (1 - _UNLIKELY, _UNLIKELY))
    size_found = f"the noise of the release has size {np.sqrt(size / d):.3g} where 1 is due"
    agree(low <= size <= high, f"{size_found}: it is not of the stated scale")
    return f"release {number}: {size_found}"


def check_measures(evidence: Evidence) -> str:
    """Accuracy and fairness of the published model are what the last certificate says."""
    found, stated = model.assess(evidence.released, evidence.test), evidence.contents[-1]["after"]
    differing = [name for name, value in found.items() if stated[name] != value]
    agree(not differing, f"the last certificate says other than the held-out people do: {', '.join(differing)}")
    return f"{len(found)} of {int(evidence.test.weight.sum())} held-out people"
