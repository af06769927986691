"""What is promised: fresh noise of the planned size on every release, and a budget that adds up."""

import contextlib
import dataclasses
import json
import math
import re
import shutil
import sqlite3
from pathlib import Path

import jax
import mpmath
import numpy as np
import pytest
import scipy.special
from scipy import optimize, stats

from fmu_jax import Objective, privacy, releases
from fmu_jax.deletion import cli, exports, guarantee, ledger, planning, requests, training
from fmu_jax.deletion.flags import Train
from fmu_jax.deletion.model import as_data
from fmu_jax.deletion.table import Table
from fmu_jax.penalties import Penalty
from tests.deletion import tables


def epsilon_of(mu, delta):
    """The epsilon of Gaussian DP (Balle & Wang 2018, Theorem 8), by root finding in 50 digits."""

    def excess(epsilon):
        a, b = mu / mpmath.mpf(2) - epsilon / mu, -mu / mpmath.mpf(2) - epsilon / mu
        return float((mpmath.ncdf(a) - mpmath.exp(epsilon) * mpmath.ncdf(b)) / delta - 1)

    with mpmath.workdps(50):
        return optimize.brentq(excess, 0.0, 10 * mu + 1, xtol=1e-18, rtol=1e-14)


def whitened(folder):
    """The noise of what is published, in units of its scale: standard normal, if the store keeps its word."""
    settings, state, rows = tables.look(folder)
    x = rows[settings.test_rows :, :-2]
    shape = x.T @ x / (4 * x[:, -1].sum()) + settings.l2 * np.eye(x.shape[1])
    return np.linalg.cholesky(shape).T @ (tables.released(folder) - np.asarray(state.params)) / settings.scale


def test_the_model_of_the_training_has_no_noise_and_costs_nothing(store):
    _, state, _ = tables.look(store)
    published = json.loads((store / exports.MODEL).read_text())
    assert published["params"] == np.asarray(state.params).tolist()
    assert published["release"] is None
    assert published["series"]["released"] == published["series"]["mu"] == published["series"]["epsilon"] == 0


def test_a_release_is_not_the_model_and_noise_is_drawn_anew(trained, tmp_path):
    """The same request from copies of one store, byte for byte: everything is the same but what is published."""
    found, states = [], []
    for k in range(3):
        folder = shutil.copytree(trained, tmp_path / str(k))
        requests.delete(folder, ["0001", "0002"])
        states.append(np.asarray(tables.look(folder)[1].params))
        found.append(tables.released(folder))
        assert json.loads((folder / exports.MODEL).read_text())["params"] == found[-1].tolist()
        assert (found[-1] != states[-1]).all()
    np.testing.assert_array_equal(states[0], states[1])
    assert all((found[i] != found[j]).any() for i in range(3) for j in range(i))
    folder = tmp_path / "0"
    first = whitened(folder)
    requests.delete(folder, ["0003"])
    assert np.abs(whitened(folder) - first).max() > 1e-3


def test_noise_has_the_shape_and_scale_that_is_stated(store):
    """100 releases of one model, whitened by NumPy: a standard normal, coordinate by coordinate and in length."""
    settings, state, rows = tables.look(store)
    shape = guarantee.shape_of(rows[settings.test_rows :, :-2], settings.l2)
    params = np.asarray(state.params)
    drawn = np.array([guarantee.publish(settings, params, 0.0, 1, shape) for _ in range(100)])
    white = (drawn - params) @ np.linalg.cholesky(shape) / settings.scale
    assert stats.kstest(white.ravel(), "norm").pvalue > 1e-6
    assert stats.kstest((white**2).sum(axis=1), "chi2", args=(white.shape[1],)).pvalue > 1e-6
    assert np.abs(np.corrcoef(white.T) - np.eye(white.shape[1])).max() < 0.5


def test_keys_are_of_128_bits_and_of_the_operating_system(monkeypatch):
    asked = []
    monkeypatch.setattr(guarantee.secrets, "token_bytes", lambda count: asked.append(count) or bytes(range(count)))
    key = guarantee.fresh_key()
    assert asked == [16]
    assert jax.random.key_data(key).size == 4


def test_a_series_costs_what_independent_formulas_say(store):
    """mu_i = admitted / scale; sqrt(sum mu_i^2); epsilon in 50 digits; up to and beyond the planned releases."""
    settings, _, _ = tables.look(store)
    assert settings.releases == 4
    assert settings.mu == pytest.approx(optimize.brentq(lambda mu: epsilon_of(mu, 1e-5) - 1.0, 0.05, 1.0), rel=1e-6)
    first = settings.admitted / settings.scale
    total = 0.0
    for number in range(1, 9):
        mu = first if number <= 4 else first / 1024
        total = math.hypot(total, mu)
        spent = guarantee.cost(settings, number)
        assert spent.left == max(4 - number, 0)
        for said, exact in (
            (spent.mu, mu),
            (spent.series_mu, total),
            (spent.epsilon, epsilon_of(mu, settings.delta)),
            (spent.series_epsilon, epsilon_of(total, settings.delta)),
        ):
            assert exact * (1 - 1e-12) <= said <= exact * (1 + 2e-5)
    for number in (4, 5, 255, 256, 257, 16_384 * 4):
        mus = np.repeat([first, first / 1024], [4, number - 4])
        composed = float(releases.compose(mus))
        said = guarantee.cost(settings, number).series_mu
        assert composed * (1 - 1e-9) <= said <= min(composed * (1 + 2e-5), settings.mu)


def test_a_series_goes_on_when_the_planned_releases_are_used_up(store):
    """Every later model is retrained, certified a thousand times nearer, and the planned cost is kept."""
    settings, _, _ = tables.look(store)
    train = [k for k in range(400) if tables.position(store, f"{k:04d}") >= settings.test_rows]
    receipts = [requests.delete(store, [f"{k:04d}"]) for k in train[:6]]
    assert [receipt.how for receipt in receipts] == [requests.UNLEARNED] * 4 + [requests.RETRAINED] * 2
    assert [receipt.certificate["series"]["planned_left"] for receipt in receipts] == [3, 2, 1, 0, 0, 0]
    assert receipts[-1].admitted == settings.admitted / 1024 >= receipts[-1].distance
    last = receipts[-1].certificate
    assert last["series"]["mu"] <= settings.mu
    assert last["release"]["mu"] < 2e-3 * receipts[0].certificate["release"]["mu"]
    _, _, rows = tables.look(store)
    assert as_data(rows[settings.test_rows :]).weight.sum() == settings.train_rows - 6
    assert np.abs(whitened(store)).max() < 8


def test_right_guesses_are_those_of_the_best_test():
    """Against the least total error of the trade-off curve, found on a grid."""
    alpha = np.linspace(1e-6, 1 - 1e-6, 100_001)
    for mu in (0.01, 0.27, 1.0, 4.0):
        misses = scipy.special.ndtr(scipy.special.ndtri(1 - alpha) - mu)
        best = 100 * (1 - (alpha + misses).min() / 2)
        assert best - 1e-4 <= guarantee.right_guesses(mu) <= best + 0.11


def test_a_statement_says_the_numbers_of_its_certificate(store):
    requests.delete(store, ["0001", "0002"])
    said = json.loads((store / "certificates" / "000001.json").read_text())
    words = " ".join(said["statement"])
    assert f"epsilon {guarantee.rounded_up(said['release']['epsilon'], 3):g} at delta 1e-05" in words
    assert "Planned is a series of 4 releases" in words
    assert "3 of them are left" in words
    assert "All releases of this store together, 1 so far" in words
    for part in ("backups", "published before a person was deleted", "encoded and scaled", "right in at most"):
        assert part in words


def test_the_wording_is_that_of_the_stores_there_are(store):
    """Verification makes the sentences anew: with another wording it would refuse certificates that were handed out."""
    requests.delete(store, ["0001", "0002"])
    said = json.loads((store / "certificates" / "000001.json").read_text())["statement"]
    assert [re.sub(r"\d[\d.e-]*\d|\d", "#", sentence) for sentence in said[2:5]] == [
        "This release alone: epsilon # at delta # (Gaussian differential privacy mu #). Whoever has to guess which of "
        "the two happened, at even chances, is right in at most # % of cases; a coin is right in # %.",
        "All releases of this store together, # so far, also if requests were chosen by looking at the models: epsilon "
        "# at delta # (Gaussian differential privacy mu #), at most # % right guesses.",
        "Planned is a series of # releases that together stay within epsilon # at delta # (mu #); # of them are left. "
        "Later ones are retrained before they are published, and the limit stays.",
    ]


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"mu": 1.0, "epsilon": 1.0}, "`mu` and `epsilon` say the same in two ways"),
        ({"mu": 0.0}, "`mu` must be positive and finite, got 0.0"),
        ({"releases": 0}, "`releases` must be a whole number of at least 1, got 0"),
        ({"admitted": 1e-15}, r"admitted distance 1e-15 is out of reach: at least .* a larger `l2` or `admitted`"),
    ],
)
def test_plans_that_cannot_be_kept_are_refused(tmp_path, plan, said):
    with pytest.raises(ValueError, match=said):
        tables.make_store(tmp_path / "model", **plan)
    assert not (tmp_path / "model").exists()


def test_an_objective_that_a_store_cannot_keep_is_refused(tmp_path):
    reweighed = Objective(l2=1e-3, fairness=1.0, reweigh=True)
    made = Objective(l2=1e-3, fairness=1.0, penalty=Penalty(match=[[1.0, 0.0], [0.0, 0.0]]))
    for objective in (reweighed, made):
        with pytest.raises(ValueError, match="a store keeps `l2`, `fairness` and the name of a `penalty`"):
            training.train(tmp_path / "model", Table(Path("a.csv"), "id", "paid", "sex"), objective=objective)


def test_the_plan_sets_the_noise(tmp_path):
    """An admitted distance and mu as they are given; the scale is admitted sqrt(releases) / mu, and the reserve."""
    done = tables.make_store(tmp_path / "model", mu=0.5, admitted=0.03, releases=9)
    settings = done.settings
    assert (settings.mu, settings.admitted, settings.releases) == (0.5, 0.03, 9)
    assert settings.scale == pytest.approx(0.03 * 3 / 0.5 / math.sqrt(1 - 1 / 64), rel=1e-9)
    scales = np.array([scale for scale, _ in done.series.values()])
    assert list(done.series) == sorted({*planning.SERIES, 9})
    np.testing.assert_allclose(scales / scales[0], np.sqrt(list(done.series)), rtol=1e-9)
    assert done.cost_of_noise == done.accuracy - done.series[9][1]
    assert done.accuracy > 0.6
    assert 0.3 < done.secret_noise_accuracy <= 1


def test_the_admitted_distance_is_the_power_of_two_that_the_plan_needs(trained):
    settings, _, _ = tables.look(trained)
    assert math.log2(settings.admitted) == int(math.log2(settings.admitted))


def test_a_store_of_secret_training_noise_is_refused_with_what_to_do(store):
    with contextlib.closing(sqlite3.connect(store / ledger.NAME)) as db, db:
        db.execute("PRAGMA user_version = 2")
    before = tables.contents(store)
    with pytest.raises(ValueError, match=r"is of version 2, .*the store stays as it is.*train a new store"):
        requests.delete(store, ["0001"])
    assert tables.contents(store) == before


def test_ranges_hold_in_python_too():
    words = dict.fromkeys(("id", "label"), "x")
    with pytest.raises(ValueError, match=r"--mu: expected a number > 0, got 0\.0"):
        cli.check(Train(csv=Path("a.csv"), store=Path("a"), group=("x",), mu=0.0, **words))


def test_no_limit_is_stated_below_itself_and_a_held_out_deletion_is_not_denied(trained):
    settings = dataclasses.replace(tables.look(trained)[0], mu=0.2681491234, delta=1e-5)
    words = " ".join(guarantee.statement(settings, 0, fresh=False))
    mu, epsilon = (float(re.findall(pattern, words)[0]) for pattern in (r"\(mu ([\d.]+)\)", r"epsilon ([\d.]+) at"))
    assert settings.mu <= mu < settings.mu * 1.001
    exact = privacy.gaussian_epsilon(settings.mu, 1.0, 1e-5)
    assert exact <= epsilon < exact * 1.001
    # Also what a first request that deleted held-out people only says.
    assert "Nobody whom the published model was trained on" in words
