"""The scripts that make, certify and train towards scores: one small sweep, all of them, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pags_jax import datasets, drawing, generation, models, smoothing
from pags_jax.images import to_float
from scripts.harness import cli, report, store
from scripts.harness.experiment import Results
from scripts.pags import certify, converse, measuring, train
from scripts.pags import generation as generation_script
from tests.pags.test_train_script import sample

pytestmark = pytest.mark.slow
TRAIN = ("--epochs", "1", "--batch-size", "27", "--attack-eps", "0.5", "--attack-steps", "1", "--strengths", "0.3")
SIZES = ("--images", "6", "--steps", "3", "--sample-steps", "2", "--square", "3", "--shrink", "2")


def call(experiment, *words):
    return experiment.run([str(word) for word in words])


@pytest.fixture(scope="module")
def images():
    return datasets.Images(*sample(90, 0), *sample(40, 1), ("top", "middle", "bottom"))


@pytest.fixture(scope="module")
def folders(images, tmp_path_factory):
    """Two training runs, a denoiser, and what the three scripts make of them."""
    root = tmp_path_factory.mktemp("runs")
    unet = models.UNet(widths=(8,), blocks=1, classes=3, upsampling="resize")
    variables = unet.init(jax.random.key(0), to_float(images.test_x[:1]))
    models.save(root / "denoiser.safetensors", unet, variables, {"config": {"dataset": "fashion_mnist"}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load", lambda name, *, folder, **options: images)
        losses = ("--loss", "cross_entropy", "randomized_smoothing")
        assert call(train.EXPERIMENT, *TRAIN, *losses, "--out", root / "train") == 0
        assert call(train.EXPERIMENT, *TRAIN, "--loss", "cross_entropy", "--seed", "1", "--out", root / "judge") == 0
        words = ("--trained", root / "train", "--denoiser", root / "denoiser.safetensors")
        judged = (*words, "--judge", root / "judge", *SIZES, "--out", root / "generation")
        assert call(generation_script.EXPERIMENT, *judged) == 0
        draws = ("--images", "6", "--samples", "40", "--denoised-samples", "20", "--selection-samples", "5")
        radii = ("--radii", "0", "0.2", "--alpha", "0.01")
        assert call(certify.EXPERIMENT, *words, *draws, *radii, "--out", root / "certify") == 0
        few = ("--images", "6", "--steps", "2", "--strengths", "2")
        assert call(converse.EXPERIMENT, *words, *few, "--out", root / "converse") == 0
        yield root


def test_every_task_is_done_by_every_model(folders, images):
    table = store.read_rows(folders / "generation")
    losses = ("cross_entropy", "randomized_smoothing", "denoiser")
    assert {(row["loss"], row["task"]) for row in table} == {(loss, t) for loss in losses for t in drawing.TASKS}
    for row in table:
        assert 0 <= row["judged"] <= 1
        assert (row.get("psnr_result") is not None) == (row["task"] not in ("synthesis", "counterfactual"))
        assert (row.get("diversity") is not None) == (row["task"] == "synthesis")
    for task in drawing.TASKS:
        assert (folders / "generation" / f"{task.replace('-', '')}.png").is_file()


def test_a_model_draws_what_the_library_does_and_is_measured_on_it(folders, images):
    """In-painting by hand: the known pixels stay, and PSNR is that of NumPy inside the square."""
    table = store.read_rows(folders / "generation")
    (row,) = (row for row in table if (row["loss"], row["task"]) == ("cross_entropy", "in-painting"))
    _, apply_fn = measuring.model_of(folders / "train", loss="cross_entropy")
    chosen = np.random.default_rng(0).permutation(40)[:6]
    x, y = to_float(images.test_x[chosen]), jnp.asarray(images.test_y[chosen])
    with np.load(folders / "generation" / "images" / "start.npz") as file:
        start, truth = file["in-painting"], file["truth"]
    with np.load(folders / "generation" / "images" / f"{row['unit']}.npz") as file:
        made = file["in-painting"]
    np.testing.assert_array_equal(truth, x)
    known = np.isclose(start, x)
    np.testing.assert_array_equal(made[known], start[known])
    square = generation.outside_square(jax.random.split(jax.random.key(0), 2)[0], x.shape, 3)
    assert (~square).sum() == 6 * 9
    found = generation.inpaint(apply_fn, x, square, y, fill=jnp.asarray(start), eps_l2=jnp.float32(4.0), steps=3)
    np.testing.assert_allclose(made, found.images, atol=1e-4)
    hole = ~np.asarray(square)[..., 0]
    error = [np.mean((made[k][hole[k]].astype(np.float64) - truth[k][hole[k]]) ** 2) for k in range(6)]
    assert row["psnr_result"] == pytest.approx(np.mean(-10 * np.log10(error)), abs=1e-3)


def test_certified_rows_are_those_of_the_library(folders, images):
    table = store.read_rows(folders / "certify")
    assert len(table) == 3 * 2
    classifiers = {certify.SMOOTHED, certify.UNDEFENDED, certify.DENOISED}
    assert {row["classifier"] for row in table} == classifiers
    for name in classifiers:
        first, second = (row["accuracy"] for row in table if row["classifier"] == name)
        assert first >= second
    _, apply_fn = measuring.model_of(folders / "train", loss=certify.SMOOTHED)
    chosen = np.random.default_rng(0).permutation(40)[:6]
    options = {"sigma": jnp.float32(0.3), "samples": 40, "selection_samples": 5, "alpha": 0.01}
    key = jax.random.fold_in(jax.random.key(0), 1)
    found = smoothing.certify(apply_fn, to_float(images.test_x[chosen]), key=key, **options)
    right = np.asarray(found.label) == images.test_y[chosen]
    (row,) = (row for row in table if (row["classifier"], row["radius"]) == (certify.SMOOTHED, 0.2))
    assert row["accuracy"] == pytest.approx(np.mean(right & (np.asarray(found.radius) > 0.2)))
    assert row["samples"] == 40


def test_gradients_are_trained_towards_scores_and_attacked_beside_the_sweep(folders):
    table = store.read_rows(folders / "converse")
    assert [row["loss"] for row in table] == ["cross_entropy", "randomized_smoothing", "score_alignment"]
    for row in table:
        assert row["failure"] is None
        assert row["ensemble"] <= row["pgd"] <= 1
    path = folders / "converse" / "models" / f"{table[-1]['unit']}.safetensors"
    assert models.load(path, kind="classifier")[0].classes == 3


def test_models_trained_towards_scores_start_where_the_sweep_started(folders, images, monkeypatch):
    monkeypatch.setattr(datasets, "load", lambda name, *, folder, **options: images)
    words = ["--trained", folders / "train", "--denoiser", folders / "denoiser.safetensors", "--images", "6"]
    config = cli.parse(converse.Config, [str(word) for word in words])
    table = measuring.trained_rows(folders / "train")
    start = folders / "train" / table[0]["weights"]
    began = {"config.start": str(start), "config.start_sha256": measuring.digest_of([start])}
    monkeypatch.setattr(measuring, "trained_rows", lambda folder: [row | began for row in table])
    ready, asked = converse.setup(config), []

    def fit(how, unit, *given, variables, **options):
        asked.append(variables)
        raise FloatingPointError("diverged")

    monkeypatch.setattr(train.fit, "fit", fit)
    unit = {"loss": converse.ALIGNED, "strength": 1.0, "seed": 0}
    assert converse.rows_of(config, ready, **unit) == [{"failure": "diverged"}]
    (variables,) = asked
    jax.tree.map(np.testing.assert_array_equal, variables, models.load(start).variables)
    began["config.start_sha256"] = "of another file"
    with pytest.raises(ValueError, match=r"--trained: .*safetensors is not the file from which its models started"):
        converse.setup(config)


@pytest.mark.parametrize("experiment", [generation_script.EXPERIMENT, certify.EXPERIMENT, converse.EXPERIMENT])
def test_reports_show_them(experiment, folders, tmp_path):
    folder = folders / experiment.name.removeprefix("pags_")
    section = report.Section(experiment.heading, experiment.section(Results(folder, store.read_rows(folder))))
    page = report.write(tmp_path / "report.html", "Title", [section]).read_text(encoding="utf-8")
    assert "data:image/png" in page
    assert "undefended" in page


@pytest.mark.parametrize(
    ("experiment", "words", "said"),
    [
        (generation_script.EXPERIMENT, ("--judge", "train", "--images", "6"), "--judge: "),
        (generation_script.EXPERIMENT, ("--square", "9", "--images", "6"), "`side` must be a whole number from 1 to 8"),
        (certify.EXPERIMENT, ("--trained", "judge"), "name noise levels by --sigmas"),
        (converse.EXPERIMENT, ("--images", "41"), "--images: there are 40 test images"),
    ],
)
def test_what_cannot_be_done_is_one_line(experiment, words, said, folders, images, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(datasets, "load", lambda name, *, folder, **options: images)
    words = [folders / word if word in ("train", "judge") else word for word in words]
    given = {"--trained": folders / "train", "--denoiser": folders / "denoiser.safetensors"}
    given |= dict(zip(words[::2], words[1::2], strict=True))
    assert call(experiment, *(word for pair in given.items() for word in pair), "--out", tmp_path / "run") == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
