"""Regimes read off synthetic curves whose regimes are known, against the rules written as loops, and by invariance."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pags_jax.regimes import LABELS, isotropic_share, peak, read, read_shares, unit_step_ratio

NAN = float("nan")


def columns(*curves):
    """Curves of one seed as arrays (k, 1)."""
    return [np.asarray(curve, float)[:, None] for curve in curves]


def labels_by_loops(accuracy, on, off, tolerance, ratio):
    """The rules of one seed, sentence by sentence."""
    accurate = [a >= max(accuracy) - tolerance for a in accuracy]
    last = max(j for j, yes in enumerate(accurate) if yes)
    labels = ["weak"] * (last + 1) + ["excessive"] * (len(accuracy) - last - 1)
    for j in range(last, -1, -1):
        if not accurate[j] or off[j] >= ratio * on[j]:
            break
        labels[j] = "aligned"
    return tuple(labels)


CURVES = st.integers(1, 7).flatmap(
    lambda k: st.tuples(*(arrays(float, k, elements=st.integers(0, 4).map(lambda v: v / 4)) for _ in range(3)))
)


@settings(max_examples=100, deadline=None)
@given(curves=CURVES, tolerance=st.sampled_from([0.0, 0.3]), ratio=st.sampled_from([0.5, 1.0]))
def test_one_seed_is_read_by_the_rules(curves, tolerance, ratio):
    strengths = np.arange(len(curves[0]))
    found = read(strengths, *columns(*curves), tolerance=tolerance, ratio=ratio)
    expected = labels_by_loops(*curves, tolerance, ratio)
    assert found.labels == expected
    weak, excessive = (
        [s for s, label in zip(strengths, expected, strict=True) if label == name] for name in LABELS[::2]
    )
    np.testing.assert_array_equal(found.weak_until, [weak[-1] if weak else NAN])
    np.testing.assert_array_equal(found.excessive_from, [excessive[0] if excessive else NAN])
    assert set(found.absent) == set(LABELS) - set(expected)
    assert (found.agreement == 1).all()


@st.composite
def sweeps(draw):
    k, seeds = draw(st.integers(2, 6)), draw(st.integers(1, 5))
    curves = [draw(arrays(float, (k, seeds), elements=st.integers(0, 8).map(lambda v: v / 8))) for _ in range(3)]
    gone = draw(arrays(bool, (k, seeds), elements=st.sampled_from([False, False, True])))
    gone[0] = False  # so that every seed has a model
    curves[draw(st.integers(0, 2))][gone] = NAN
    return curves


@settings(max_examples=100, deadline=None)
@given(curves=sweeps(), seed=st.integers(0, 99))
def test_labels_rise_and_depend_on_what_they_should(curves, seed):
    strengths = np.arange(len(curves[0])) + 1.0
    found = read(strengths, *curves)
    places = [LABELS.index(label) for label in found.labels if label]
    assert places == sorted(places)
    assert not np.any(found.weak_until >= found.excessive_from)
    accuracy, on, off = curves
    others = {
        "a common unit of the deviations": (strengths, accuracy, 4 * on, 4 * off),
        "accuracy as far below the best": (strengths, accuracy / 2 + 0.5, on, off),
        "the order of the seeds": (
            strengths,
            *(c[:, np.random.default_rng(seed).permutation(c.shape[1])] for c in curves),
        ),
    }
    for what, other in others.items():
        tolerance = 0.01 if what.startswith("accuracy") else 0.02
        again = read(*other, tolerance=tolerance)
        assert again.labels == found.labels, what
        np.testing.assert_array_equal(again.agreement, found.agreement)
    assert read(strengths**3, *curves).labels == found.labels


@settings(max_examples=100, deadline=None)
@given(curves=sweeps())
def test_seeds_vote(curves):
    found = read(np.arange(len(curves[0])), *curves)
    seeds = curves[0].shape[1]
    votes = [[None] * seeds for _ in curves[0]]
    for seed in range(seeds):
        known = [j for j in range(len(votes)) if np.isfinite(sum(c[j, seed] for c in curves))]
        single = labels_by_loops(*([c[j, seed] for j in known] for c in curves), 0.02, 1.0)
        for j, label in zip(known, single, strict=True):
            votes[j][seed] = label
    for label, agreement, vote in zip(found.labels, found.agreement, votes, strict=True):
        counts = {name: vote.count(name) for name in LABELS}
        assert agreement == max(counts.values()) / seeds
        assert label == next((name for name in LABELS if counts[name] > seeds / 2), None)


# ------------------------------------------------------------------------------------------------- known sweeps
STRENGTHS = np.logspace(-4, 2, 13)


def noisy_sweep(seeds, spread, seed=0):
    """Off falls below on at 10^-2, accuracy falls from 10^0 on: noise on everything, and on where that happens."""
    rng = np.random.default_rng(seed)
    place = np.log10(STRENGTHS)[:, None] + spread * rng.normal(size=(1, seeds))
    accuracy = 0.95 - 0.4 / (1 + np.exp(-8 * (place - 0.75))) + 0.01 * spread * rng.normal(size=place.shape)
    on = np.exp(-0.2 * (place + 4)) * (1 + 0.1 * spread * rng.normal(size=place.shape))
    off = on * 10 ** (-(place + 2.25) / 2) * (1 + 0.1 * spread * rng.normal(size=place.shape))
    return accuracy, on, off


def test_a_sweep_without_noise_gives_its_regimes():
    found = read(STRENGTHS, *noisy_sweep(1, 0.0))
    assert found.labels == ("weak",) * 4 + ("aligned",) * 5 + ("excessive",) * 4
    np.testing.assert_allclose(found.weak_until, 10**-2.5)
    np.testing.assert_allclose(found.excessive_from, 10**0.5)
    np.testing.assert_allclose(found.span("weak"), (1e-4, 10**-2.5))
    np.testing.assert_allclose(found.span("aligned"), (1e-2, 1))
    np.testing.assert_allclose(found.span("excessive"), (10**0.5, 1e2))
    assert found.absent == {}


def test_noisy_seeds_agree_but_at_the_boundaries():
    found = read(STRENGTHS, *noisy_sweep(15, 0.3))
    clear = [0, 1, 2, 5, 6, 7, 10, 11, 12]
    expected = ("weak",) * 3 + ("aligned",) * 3 + ("excessive",) * 3
    assert tuple(found.labels[k] for k in clear) == expected
    assert (found.agreement[clear] > 0.9).all()
    assert (found.agreement[[3, 4, 8, 9]] < 1).any()
    assert abs(np.median(np.log10(found.weak_until)) + 2.5) <= 0.5
    assert len(set(found.weak_until)) > 1


def test_a_sweep_that_stays_weak_has_no_other_regime():
    found = read([1, 2, 3], *(np.tile(row, (3, 2)) for row in (0.9, 1.0, 2.0)))
    assert found.labels == ("weak",) * 3
    assert found.span("aligned") is None
    assert np.isnan(found.excessive_from).all()
    assert set(found.absent) == {"aligned", "excessive"}
    assert found.absent["aligned"].startswith("0 of 2 seeds show it; for the others off-manifold deviation")
    assert found.absent["excessive"] == "0 of 2 seeds show it; for the others the strongest strength is still accurate"


@pytest.mark.parametrize(
    ("accuracy", "on", "off", "expected"),
    [
        # A tie is not aligned; nor is a model that no longer moves at all.
        ([0.9, 0.9, 0.9], [1, 1, 1], [2, 1, 0.9], "wwa"),
        ([0.9, 0.9, 0.5], [1, 1, 0], [2, 0.5, 0], "wae"),
        ([0.5, 0.5, 0.5], [0, 0, 0], [0, 0, 0], "www"),
        # The last crossing counts.
        ([0.9, 0.9, 0.9, 0.9], [1, 1, 1, 1], [0.5, 2, 0.5, 0.4], "wwaa"),
        # Accuracy that recovers was not lost; what is inaccurate before is not aligned.
        ([0.9, 0.7, 0.9, 0.7], [1, 1, 1, 1], [0.5, 0.5, 0.5, 0.5], "wwae"),
        # Accuracy falls before off does: nothing is aligned.
        ([0.9, 0.9, 0.5, 0.5], [1, 1, 1, 1], [2, 2, 0.5, 0.5], "wwee"),
        # Aligned from the first strength to the last.
        ([0.9, 0.89], [1, 1], [0.5, 0.5], "aa"),
        # A peak of accuracy makes what is weaker weak, and what is stronger excessive.
        ([0.7, 0.9, 0.7], [1, 1, 1], [0.5, 0.5, 0.5], "wae"),
    ],
)
def test_curves_that_are_not_monotone(accuracy, on, off, expected):
    found = read(range(len(on)), *columns(accuracy, on, off))
    assert "".join(label[0] for label in found.labels) == expected
    assert {label[0] for label in found.absent} == set("wae") - set(expected)


def test_seeds_that_disagree_give_no_label():
    one, other = ([0.9, 0.9, 0.5], [1, 1, 1], [2, 0.5, 0.5]), ([0.9, 0.9, 0.9], [1, 1, 1], [2, 2, 0.5])
    found = read([1, 2, 3], *(np.stack(pair, axis=1) for pair in zip(one, other, strict=True)))
    assert found.labels == ("weak", None, None)
    np.testing.assert_array_equal(found.agreement, [1, 0.5, 0.5])
    assert found.absent["aligned"] == "all seeds show it, but most of them at no common strength"
    assert found.absent["excessive"].startswith("1 of 2 seeds show it; for the others")
    np.testing.assert_array_equal(found.weak_until, [1, 2])
    np.testing.assert_array_equal(found.excessive_from, [3, NAN])


def test_missing_models_leave_the_others_of_their_seed():
    accuracy, on, off = columns([0.9, 0.9, 0.9, 0.5], [1, 1, 1, 1], [2, 9, 0.5, 0.5])
    off[1] = NAN
    found = read([1, 2, 3, 4], accuracy, on, off)
    assert found.labels == ("weak", None, "aligned", "excessive")
    np.testing.assert_array_equal(found.agreement, [1, 0, 1, 1])


def test_thresholds_are_what_they_say():
    accuracy, on, off = columns([0.90, 0.89, 0.87, 0.5], [1, 1, 1, 1], [0.9, 0.6, 0.4, 0.3])
    assert read(range(4), accuracy, on, off, tolerance=0.02).labels == ("aligned", "aligned", "excessive", "excessive")
    assert read(range(4), accuracy, on, off, tolerance=0.05).labels == ("aligned",) * 3 + ("excessive",)
    assert read(range(4), accuracy, on, off, tolerance=0.05, ratio=0.5).labels[:3] == ("weak", "weak", "aligned")


def test_a_sweep_at_chance_has_no_regimes():
    """Ten classes: a best accuracy of 0.12 is chance and the tolerance, one of 0.13 is more."""
    curves = columns([0.12, 0.11, 0.1], [1, 1, 1], [0.5, 0.5, 0.5])
    assert read(range(3), *curves).labels == ("aligned",) * 3
    found = read(range(3), *curves, chance=0.1)
    assert found.labels == (None,) * 3
    np.testing.assert_array_equal(found.agreement, np.zeros(3))
    assert np.isnan([found.weak_until, found.excessive_from]).all()
    for label in LABELS:
        assert found.absent[label] == "0 of 1 seeds show it; for 1 no strength's accuracy is above chance"
    curves[0][0] = 0.13
    assert read(range(3), *curves, chance=0.1).labels == ("aligned", "aligned", "excessive")


def test_seeds_at_chance_do_not_vote():
    one, other = ([0.9, 0.9], [1, 1], [2, 0.5]), ([0.1, 0.1], [1, 1], [2, 0.5])
    found = read([1, 2], *(np.stack([*2 * [a], b], axis=1) for a, b in zip(one, other, strict=True)), chance=0.1)
    assert found.labels == ("weak", "aligned")
    np.testing.assert_allclose(found.agreement, [2 / 3, 2 / 3])
    said = "0 of 3 seeds show it; for 1 no strength's accuracy is above chance; for the others the strongest"
    assert found.absent["excessive"].startswith(said)


def test_any_ratio_needs_a_model_that_moves_along_the_manifold():
    found = read(range(3), *columns([0.9, 0.9, 0.9], [0, 0, 1], [0, 1, 50]), ratio=np.inf)
    assert found.labels == ("weak", "weak", "aligned")


# --------------------------------------------------------------------------------------------------------- peaks
def test_peaks_are_of_the_median_and_paired():
    values = np.array([[0.1, 0.3, 0.2], [0.6, 0.2, 0.5], [0.5, 0.9, 0.4]])
    found = peak([0, 1, 10], values)
    assert (found.strength, found.is_inner) == (1.0, True)
    np.testing.assert_allclose(found.rise, [0.5, -0.1, 0.3])
    np.testing.assert_allclose(found.fall, [0.1, -0.7, 0.1])
    with_missing = values.copy()
    with_missing[1, 1] = NAN
    again = peak([0, 1, 10], with_missing)
    assert again.strength == 1.0
    np.testing.assert_allclose(again.rise, [0.5, NAN, 0.3])


@pytest.mark.parametrize(("curve", "strength"), [([3, 2, 1], 1), ([1, 2, 3], 3), ([2, 2, 2], 1)])
def test_peaks_at_an_end_are_not_inner(curve, strength):
    found = peak([1, 2, 3], *columns(curve))
    assert (found.strength, found.is_inner) == (strength, False)


GOOD = np.full((2, 1), 0.5)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: read([2, 1], GOOD, GOOD, GOOD), r"must be finite and ascend, got \[2.0, 1.0\]"),
        (lambda: read([1, 1], GOOD, GOOD, GOOD), "must be finite and ascend"),
        (lambda: read([1, NAN], GOOD, GOOD, GOOD), "must be finite and ascend"),
        (lambda: read([], GOOD, GOOD, GOOD), "must be finite and ascend"),
        (lambda: read([1, 2], GOOD, GOOD[:, 0], GOOD), r"`on` must be \(2 strengths, seeds\), got the shape \(2,\)"),
        (lambda: read([1, 2], GOOD, GOOD, GOOD.repeat(2, 1)), r"`off` must be .* got the shape \(2, 2\)"),
        (lambda: read([1, 2, 3], GOOD, GOOD, GOOD), r"`accuracy` must be \(3 strengths, seeds\)"),
        (lambda: read([1, 2], GOOD[:, :0], GOOD[:, :0], GOOD[:, :0]), r"got the shape \(2, 0\)"),
        (lambda: read([1, 2], 100 * GOOD, GOOD, GOOD), r"`accuracy` in \[0, 1\]"),
        (lambda: read([1, 2], GOOD, -GOOD, GOOD), "deviations of at least 0"),
        (lambda: read([1, 2], GOOD, GOOD / 0, GOOD), "`on` holds infinite values"),
        (lambda: read([1, 2], GOOD, NAN * GOOD, GOOD), "seed 0 of the sweep has no model"),
        (lambda: read([1, 2], GOOD, GOOD, GOOD, tolerance=-0.1), "got -0.1 and 1.0"),
        (lambda: read([1, 2], GOOD, GOOD, GOOD, ratio=0.0), "got 0.02 and 0.0"),
        (lambda: read([1, 2], GOOD, GOOD, GOOD, chance=10.0), r"`chance` in \[0, 1\), .* got 10"),
        (lambda: peak([1, 2], np.array([[1.0], [NAN]])), "no seed has a value at the strength 2"),
        (lambda: peak([2, 1], GOOD), "must be finite and ascend"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_what_cannot_be_read_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_shares_are_read_by_energy_and_unit_steps_pass_earlier():
    """A gradient without direction passes the rule of unit steps, not that of energy."""
    k, d = 32, 784
    share = np.array([[0.97], [isotropic_share(k, d) - 0.01], [0.6], [0.4], [0.2]])
    accuracy, strengths = np.array([[0.9], [0.9], [0.9], [0.89], [0.5]]), np.arange(5)
    by_energy = read_shares(strengths, accuracy, share)
    assert by_energy.labels == ("weak", "weak", "weak", "aligned", "excessive")
    ratio = unit_step_ratio(share, k, d)
    by_steps = read(strengths, accuracy, np.ones_like(share), ratio)
    assert by_steps.labels == ("weak", "aligned", "aligned", "aligned", "excessive")
    # The same rule for steps has another threshold.
    assert read(strengths, accuracy, np.ones_like(share), ratio, ratio=np.sqrt(k / (d - k))).labels == by_energy.labels


def test_the_ratio_of_unit_steps_is_that_of_random_directions():
    rng = np.random.default_rng(0)
    k, d, draws = 5, 40, 20_000
    gradient = rng.normal(size=d) * np.where(np.arange(d) < k, 3, 1)
    noise = rng.normal(size=(draws, d))
    on, off = noise[:, :k], noise[:, k:]
    along = [
        (part / np.linalg.norm(part, axis=1, keepdims=True)) @ piece
        for part, piece in ((on, gradient[:k]), (off, gradient[k:]))
    ]
    measured = np.sqrt((along[1] ** 2).mean() / (along[0] ** 2).mean())
    share = (gradient[k:] ** 2).sum() / (gradient**2).sum()
    np.testing.assert_allclose(unit_step_ratio(share, k, d), measured, rtol=0.03)
    assert unit_step_ratio(1.0, k, d) == np.inf


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: isotropic_share(5, 4), "from 0 to 4"),
        (lambda: unit_step_ratio(0.5, 4, 4), "directions on and off"),
        (lambda: unit_step_ratio(1.1, 4, 8), r"shares in \[0, 1\], got 1.1"),
        (lambda: unit_step_ratio(-0.1, 4, 8), r"shares in \[0, 1\], got -0.1"),
        (lambda: read_shares([1, 2], [[0.9], [0.9]], [[0.5], [1.2]]), "shares in .0, 1., got 1.2"),
    ],
)
def test_shares_and_ranks_out_of_range_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
