"""The scripts that train denoisers and autoencoders as a user calls them: flags, a run that resumes, what is saved."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pags_jax import checkpoints, datasets, models, recipes, scores
from pags_jax.images import to_float
from scripts.harness import cli, rows, store
from scripts.pags import autoencoder, generative, score

pytestmark = pytest.mark.slow  # Whole scripts run.

SCRIPTS = {"score": score, "autoencoder": autoencoder}
TINY = ["--epochs", "2", "--batch-size", "16", "--warm-up", "2", "--measured-rows", "30"]
SMALL = {
    "score": [*TINY, "--widths", "8", "--blocks", "1", "--sigmas", "0.3", "1.0", "--sample-steps", "3"],
    "autoencoder": [*TINY, "--widths", "4", "8", "--latent", "5"],
}
FILES = {"score": "denoiser.safetensors", "autoencoder": "autoencoder.safetensors"}


def call(name, *words):
    script = SCRIPTS[name]
    return script.EXPERIMENT.run(list(words))


def sample(count, seed):
    draw = np.random.default_rng(seed)
    y = draw.integers(0, 3, count).astype(np.int32)
    x = draw.integers(0, 100, (count, 8, 8, 1))
    for label in range(3):
        x[y == label, 3 * label : 3 * label + 2] += 120
    return x.astype(np.uint8), y


@pytest.fixture
def data(monkeypatch):
    images = datasets.Images(*sample(64, 0), *sample(40, 1), ("top", "middle", "bottom"))
    monkeypatch.setattr(datasets, "load", lambda name, *, folder: images)
    return images


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_names_every_flag(name, capsys):
    with pytest.raises(SystemExit) as end:
        call(name, "--help")
    assert end.value.code == 0
    shown = capsys.readouterr().out
    for field in dataclasses.fields(SCRIPTS[name].Config):
        assert "--" + field.name.replace("_", "-") in shown


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--no-such-flag", "1"], "no-such-flag"),
        (["--dataset", "distractor"], "fashion_mnist"),
        (["--epochs", "0"], ">= 1"),
        (["--widths"], "at least one"),
        (["--widths", "8", "0"], ">= 1"),
        (["--decay", "1"], "(0, 1)"),
        (["--learning-rate", "0"], "> 0"),
        (["--storage", "int8"], "float16"),
    ],
)
def test_bad_flags_are_refused(name, words, said, capsys):
    with pytest.raises(SystemExit) as end:
        call(name, *words)
    assert end.value.code == 2
    error = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert words[0] in error
    assert said in error


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("score", ["--train-rows", "10"], "batch of 16"),
        ("autoencoder", ["--train-rows", "10"], "batch of 16"),
        ("score", ["--sample-steps", "1"], "at least 2 steps"),
        ("score", ["--learning-rate", "1e30"], "training diverged: "),
        ("score", ["--dataset", "mnist", "--folder", "nowhere"], "nowhere"),
        ("autoencoder", ["--dataset", "cifar10", "--folder", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_done_is_one_line(name, words, said, tmp_path, capsys, request):
    if "--dataset" not in words:
        request.getfixturevalue("data")
    assert call(name, *SMALL[name], "--out", str(tmp_path / "run"), *words) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_dry_run_writes_nothing(name, tmp_path, capsys):
    assert call(name, "--dry-run", "--preset", "paper", "--seed", "3", "--out", str(tmp_path / "run")) == 0
    assert "dataset=cifar10,seed=3" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


class Stop(Exception):
    """Ends a process, as far as a training can tell."""


@pytest.mark.parametrize(
    ("name", "resumes"),
    [  # Both scripts train and resume by the same functions.
        ("score", False), ("autoencoder", True), pytest.param("score", True, marks=pytest.mark.weekly),
    ],
)  # fmt: skip
def test_a_small_run_says_what_it_saved_and_resumes_with_the_same_bits(
    name, resumes, data, tmp_path, monkeypatch, capsys
):
    words = [*SMALL[name], "--save-minutes", "0"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert call(name, *words, "--out", str(whole)) == 0
    check_run(name, whole, data)
    # Figures are drawn of what a run has saved, however it came to be; once will do.
    monkeypatch.setattr(type(SCRIPTS[name].EXPERIMENT), "draw_all", lambda *given: None)
    if resumes:
        check_resuming(name, words, whole, parts, monkeypatch)
    then = (whole / FILES[name]).stat().st_mtime_ns
    assert call(name, *words, "--out", str(whole)) == 0
    assert (whole / FILES[name]).stat().st_mtime_ns == then
    assert call(name, *words, "--epochs", "3", "--out", str(whole)) == 1
    assert "epochs: 2 there, 3 here" in capsys.readouterr().err


def check_resuming(name, words, whole, parts, monkeypatch):
    """A run that ends on the way and goes on saves what one that did not end saves."""
    real, saved = checkpoints.save, []

    def interrupted(*given, **options):
        saved.append(real(*given, **options))
        if len(saved) == 3:
            raise Stop

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(checkpoints, "save", interrupted)
        call(name, *words, "--out", str(parts))
    assert checkpoints.latest(parts / "checkpoints" / "dataset=fashion_mnist,seed=0") == 3
    assert call(name, *words, "--out", str(parts)) == 0
    one, other = (models.load(folder / FILES[name]).variables for folder in (whole, parts))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    timing = ("wall_s", "train_s", "images_per_s", "config.out")
    tables = [[{k: v for k, v in row.items() if k not in timing} for row in store.read_rows(f)] for f in (whole, parts)]
    assert tables[0] == tables[1]


def check_run(name, out, data):
    """Rows, figures and the model that was saved belong together."""
    table = store.read_rows(out)
    assert not list((out / "checkpoints").iterdir())
    figures = {"score": {"loss.png", "denoised.png", "samples.png"}, "autoencoder": {"loss.png", "reconstructions.png"}}
    assert {path.name for path in out.glob("*.png")} == figures[name]
    model, variables, about = models.load(out / FILES[name])
    assert about["config"]["epochs"] == 2
    assert "folder" not in about["config"]
    again = cli.parse(SCRIPTS[name].Config, about["command"].split()[3:])
    assert about["command"].startswith(f"python -m scripts.pags.{name} --epochs 2 --batch-size 16 ")
    assert generative.command_of(again) == about["command"]
    assert rows.flatten(again)["widths"] == about["config"]["widths"]
    assert table[0]["parameters"] == models.count_parameters(variables)
    assert (table[0]["train_rows"], len(table[0]["epoch_loss"])) == (64, 2)
    x = to_float(data.test_x[:30])
    if name == "autoencoder":
        error = np.mean((np.asarray(jax.jit(model.apply)(variables, x), float) - np.asarray(x, float)) ** 2)
        assert table[0]["test_error"] == pytest.approx(error, rel=1e-4)
        assert about["measured"]["test_error"] == table[0]["test_error"]
        mean = np.mean((np.asarray(x, float) - data.train_x.mean(0) / 255) ** 2)
        assert table[0]["mean_image_error"] == pytest.approx(mean, rel=1e-6)
        return
    assert model.sigma_data == pytest.approx(np.std(2 * (data.train_x / 255) - 1), abs=1e-3)
    assert [row["sigma_pm1"] for row in table] == about["measured"]["sigma_pm1"] == [0.3, 1.0]
    noise = jax.random.normal(jax.random.key(0), x.shape, jnp.float32)
    for row in table:
        sigma = jnp.float32(row["sigma_pm1"])
        noisy = 2 * x - 1 + sigma * noise
        for labels, column in ((None, "test_loss"), (jnp.asarray(data.test_y[:30]), "test_loss_labelled")):
            denoised = jax.jit(scores.denoiser(model, variables, labels))(noisy, sigma)
            error = np.mean((np.asarray(denoised, float) - np.asarray(2 * x - 1, float)) ** 2)
            weight = 1 / row["sigma_pm1"] ** 2 + 1 / model.sigma_data**2
            assert row[column] == pytest.approx(weight * error, rel=1e-3)
            if labels is None:
                assert row["test_rms_error"] == pytest.approx(np.sqrt(error), rel=1e-3)


def test_saved_in_float16_the_measured_weights_are_the_saved_ones(data, tmp_path):
    words = [*SMALL["autoencoder"], "--storage", "float16", "--epochs", "1"]
    assert call("autoencoder", *words, "--out", str(tmp_path)) == 0
    (row,) = store.read_rows(tmp_path)
    model, variables, _ = models.load(tmp_path / "autoencoder.safetensors")
    x = to_float(data.test_x[:30])
    error = np.mean((np.asarray(jax.jit(model.apply)(variables, x), float) - np.asarray(x, float)) ** 2)
    assert row["test_error"] == pytest.approx(error, rel=1e-5)
    for leaf in jax.tree.leaves(variables):
        np.testing.assert_array_equal(leaf, np.asarray(leaf).astype(np.float16).astype(np.float32))


def test_photographs_are_flipped_and_clothes_are_not():
    def augmented(*words):
        config = cli.parse(score.Config, list(words))
        return recipes.flips_of(config.augment, config.dataset).__name__

    assert augmented("--dataset", "cifar10") == "flip"
    assert augmented("--dataset", "fashion_mnist") == "unchanged"
    assert augmented("--dataset", "cifar10", "--augment", "none") == "unchanged"
    assert augmented("--augment", "flip") == "flip"
