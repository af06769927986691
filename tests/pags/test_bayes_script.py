"""The script on synthetic manifolds as a user calls it, and the paper's theorems about training, over seeds."""

import dataclasses

import jax
import numpy as np
import pytest

from pags_jax import bayes, bayes_networks, losses, regimes
from scripts.harness import cli, store
from scripts.pags import bayes as pags_bayes

pytestmark = pytest.mark.slow  # Whole scripts run.

SMALL = ["--repeats", "2", "--steps", "20", "--pixels", "16", "--distractors", "4", "--width", "8"]
SMALL += ["--train-rows", "32", "--test-rows", "40"]


@pytest.fixture(scope="module", autouse=True)
def standard_promotion():
    """Adam, which is optax's, raises a float to the power of an integer."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def call(*words):
    return pags_bayes.EXPERIMENT.run(list(words))


def test_help_names_every_flag(capsys):
    with pytest.raises(SystemExit) as end:
        call("--help")
    assert end.value.code == 0
    shown = capsys.readouterr().out
    for field in dataclasses.fields(pags_bayes.Config):
        assert "--" + field.name.replace("_", "-") in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--manifolds", "sphere"], "curved"),
        (["--strengths", "-1"], "number >= 0"),
        (["--noise", "-0.1"], "number >= 0"),
        (["--pixels", "0"], ">= 1"),
        (["--tolerance", "1"], "(0, 1)"),
    ],
)
def test_bad_flags_are_refused(words, said, capsys):
    with pytest.raises(SystemExit) as end:
        call(*words)
    assert end.value.code == 2
    error = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert words[0] in error
    assert said in error


@pytest.mark.parametrize(
    ("words", "said"), [(["--pixels", "11"], "12 pixels or more"), (["--radius", "1"], "`radius` must be at least")]
)
def test_what_cannot_be_done_is_one_line(words, said, tmp_path, capsys):
    assert call(*SMALL, "--manifolds", "curved", "--out", str(tmp_path / "run"), *words) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_dry_run_lists_units_and_writes_nothing(tmp_path, capsys):
    assert call("--dry-run", "--repeats", "3", "--seed", "5", "--out", str(tmp_path / "run")) == 0
    shown = capsys.readouterr().out
    assert "units of work: 6" in shown
    assert "manifold=curved,seed=7" in shown
    assert not (tmp_path / "run").exists()


def test_small_sweep(tmp_path, capsys, monkeypatch):
    traced, real = [], losses.gradient_norm
    monkeypatch.setattr(losses, "gradient_norm", lambda *given: traced.append(1) or real(*given))
    out = tmp_path / "run"
    words = [*SMALL, "--strengths", "0", "0.1", "1", "--out", str(out)]
    assert call(*words) == 0
    assert len(traced) == 1  # all strengths, seeds and manifolds are one program
    table = store.read_rows(out)
    assert len(table) == 2 * 2 * 3
    assert (out / "bayes.png").exists()
    for row in table:
        assert row["unusable_gradients"] == 0
        assert all(0 <= row[name] <= 1 for name in ("accuracy", "off_manifold_share", "distractor_share"))
        assert row["off_manifold_share"] + row["distractor_share"] <= 1
    done = {path: path.stat().st_mtime_ns for path in (out / "units").iterdir()}
    assert len(done) == 4
    assert call(*words) == 0
    assert all(path.stat().st_mtime_ns == then for path, then in done.items())
    assert call(*words, "--steps", "21") == 1
    assert "steps: 20 there, 21 here" in capsys.readouterr().err
    config = pags_bayes.Config(out=tmp_path / "one", strengths=(0.0,), manifolds=("linear",))
    pags_bayes.draw(config, [row for row in table if row["strength"] == 0])
    assert "linear: no strength is excessive: 0 of 2 seeds show it" in capsys.readouterr().err


def test_measures_of_the_bayes_optimal_model_itself():
    """What each column says of the truth: nothing is left to improve."""

    class Optimum:
        apply = staticmethod(bayes.log_posterior)

    config = cli.parse(pags_bayes.Config, SMALL)
    for manifold in ("linear", "curved"):
        shape = {name: getattr(config, name) for name in ("radius", "distractors", "distractor_std", "noise")}
        problem = bayes_networks.corners(manifold, (config.pixels,), key=jax.random.key(0), **shape)
        _, truth = bayes_networks.images_of(problem, key=jax.random.key(1), train_rows=1, test_rows=200)
        stacked = jax.tree.map(lambda leaf: leaf[None], problem)
        measured = bayes_networks.compare(Optimum(), stacked, truth, 0.5, key=jax.random.key(2))
        row = {name: float(value[0]) for name, value in measured.items()}
        assert row["accuracy"] == row["bayes_accuracy"]
        assert row["posterior_gap"] < 1e-6
        assert row["cosine"] > 1 - 1e-6
        assert max(row["off_manifold_share"], row["distractor_share"]) < 1e-6
        # Images have noise, so that steps off the manifold start off it, too.
        assert row["off_manifold"] < 1e-5 < 0.01 < row["on_manifold"]


@pytest.fixture(scope="module")
def sweeps(optimised):
    """Of five seeds, columns ``(strengths, seeds)`` by manifold."""
    config = pags_bayes.Config()
    found = {}
    for manifold in config.manifolds:
        rows = [pags_bayes.rows_of(config, manifold=manifold, seed=seed) for seed in range(5)]
        found[manifold] = {name: np.array([[row[name] for row in sweep] for sweep in rows]).T for name in rows[0][0]}
    return found


@pytest.mark.slow
@pytest.mark.parametrize("manifold", ["linear", "curved"])
def test_robust_networks_have_less_gradient_off_the_manifold_than_standard_ones(sweeps, manifold):
    """In every seed, by 0.05 of the squared length at least; and less in the distractor."""
    sweep = sweeps[manifold]
    standard, robust = (np.flatnonzero(sweep["strength"][:, 0] == strength)[0] for strength in (0.0, 3.0))
    assert (sweep["off_manifold_share"][standard] - sweep["off_manifold_share"][robust]).min() > 0.05
    assert (sweep["distractor_share"][standard] - sweep["distractor_share"][robust]).min() > 0.03
    assert (sweep["accuracy"][robust] - sweep["accuracy"][standard]).min() > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("manifold", ["linear", "curved"])
def test_regularisation_moves_networks_towards_the_bayes_optimal_one_and_past_it(sweeps, manifold):
    """Gradients turn towards its gradients and away again, probabilities near its and leave; in every seed."""
    sweep = sweeps[manifold]
    for curve, margin in ((sweep["cosine"], 0.1), (-sweep["posterior_gap"], 0.05)):
        found = regimes.peak(sweep["strength"][:, 0], curve)
        assert found.is_inner
        assert found.rise.min() > margin
        assert found.fall.min() > 2 * margin


@pytest.mark.slow
@pytest.mark.parametrize("manifold", ["linear", "curved"])
def test_the_sweep_shows_all_regimes(sweeps, manifold):
    sweep = sweeps[manifold]
    curves = (sweep[name] for name in ("accuracy", "on_manifold", "off_manifold"))
    found = regimes.read(sweep["strength"][:, 0], *curves, tolerance=pags_bayes.Config().tolerance)
    assert found.absent == {}
    assert (found.labels[0], found.labels[6], found.labels[-1]) == ("weak", "aligned", "excessive")
    assert found.agreement[[0, -1]].min() == 1
    aligned = found.span("aligned")
    top = regimes.peak(sweep["strength"][:, 0], sweep["cosine"]).strength
    assert aligned[0] <= top <= aligned[1]
