"""The scripts that measure a training run's models: one small sweep, all measures, figures and what is refused."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pags_jax import datasets, models, robustness, scores
from pags_jax.datasets import pretrained
from pags_jax.gradients import input_gradients
from pags_jax.images import to_float
from scripts import pags_figures, pags_manifolds, pags_measuring, pags_models, pags_report, pags_robustness
from scripts.harness import cli, report, store
from tests.pags.test_train_script import sample

MEASURING = ("--manifold", "local_pca", "--rank", "3", "--neighbours", "6", "--images", "10")


def call(name, *words):
    module = importlib.import_module(f"scripts.{name}")
    return cli.run(module.main, module.Config, plan=module.plan, argv=[str(word) for word in words])


@pytest.fixture(scope="module")
def images():
    """Three classes of 8 x 8 images, with masks whose left half is the signal."""
    x, y = sample(90, 0)
    test_x, test_y = sample(40, 1)
    half = np.zeros((90, 8, 8), bool)
    half[:, :, :4] = True
    return datasets.Images(x, y, test_x, test_y, ("top", "middle", "bottom"), half, half[:40])


@pytest.fixture(scope="module")
def folders(images, tmp_path_factory):
    """A sweep, and every measure of it."""
    root = tmp_path_factory.mktemp("runs")
    unet = models.UNet(widths=(8,), blocks=1, classes=3)
    variables = unet.init(jax.random.key(0), to_float(images.test_x[:1]))
    variables = jax.tree.map(
        lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(1), leaf.shape, leaf.dtype), variables
    )
    (root / "denoiser.safetensors").write_bytes(pretrained.pack(unet, variables, {}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load", lambda name, *, folder, **options: images)
        words = (
            "--loss",
            "cross_entropy",
            "smoothness",
            "--strengths",
            "0.1",
            "1",
            "--epochs",
            "1",
            "--attack-eps",
            "0.5",
        )
        words += ("--attack-steps", "1", "--batch-size", "27", "--dataset", "distractor", "--out", root / "train")
        assert call("pags_train", *words) == 0
        trained = ("--trained", root / "train")
        eps = ("--eps", "0.5", "2.6", "--draws", "2")
        assert call("pags_robustness", *trained, *MEASURING, *eps, "--out", root / "robustness") == 0
        denoiser = ("--denoiser", root / "denoiser.safetensors", "--shown", "2")
        assert call("pags_alignment", *trained, *MEASURING, *denoiser, "--out", root / "alignment") == 0
        assert (
            call("pags_distractor", *trained, "--images", "10", "--sigmas", "0.1", "1", "--out", root / "distractor")
            == 0
        )
        yield root


def test_every_model_is_measured_on_the_same_images(folders, images):
    """Against the pieces, put together by hand for one model."""
    table = store.read_rows(folders / "robustness")
    assert len(table) == 3 * 2
    assert len({(row["loss"], row["strength"], row["eps_l2"]) for row in table}) == 6
    config = cli.parse(pags_robustness.Config, [str(word) for word in ("--trained", folders / "train", *MEASURING)])
    trained = pags_measuring.trained_rows(folders / "train")
    seen = pags_measuring.sample(config, trained)
    chosen = np.random.default_rng(0).permutation(40)[:10]
    np.testing.assert_array_equal(seen.x, to_float(images.test_x[chosen]))
    basis = pags_manifolds.basis_of(config, seen)
    noise = jax.random.normal(jax.random.fold_in(jax.random.key(0), 1), (2, *seen.x.shape), jnp.float32)
    (row,) = (row for row in table if (row["strength"], row["eps_l2"]) == (1.0, 2.6))
    (weights,) = (line["weights"] for line in trained if line["strength"] == 1.0)
    apply_fn = models.evaluator(*pags_models.load_model(folders / "train" / weights))
    expected = {"on": [], "off": []}
    for draw in noise:
        for side, unit in zip(("on", "off"), robustness.directions(basis, draw), strict=True):
            moved = jax.nn.softmax(apply_fn(seen.x + 2.6 * unit)) - jax.nn.softmax(apply_fn(seen.x))
            expected[side].append(jnp.abs(moved).sum(1).mean())
    for side, values in expected.items():
        assert row[side] == pytest.approx(np.mean(values), rel=1e-4)
    assert row["invalid"] == 0


def test_alignment_rows_say_what_was_compared(folders):
    table = store.read_rows(folders / "alignment")
    pairs = {("logit_sum", "unconditional"), ("logit", "conditional"), ("log_prob", "bayes")}
    assert {(row["target"], row["score"]) for row in table} == pairs
    assert len(table) == 3 * 3 * 3
    assert {row["sigma_pm1"] for row in table} == {0.5, 1.0, 2.0}
    for row in table:
        assert -1 <= row["cosine"] <= 1
        assert row["similarity"] < 1
        assert 0 <= row["off_share"] <= 1
    trained = pags_measuring.trained_rows(folders / "train")
    unit = pags_measuring.units(trained)[0]
    with np.load(folders / "alignment" / "scores_1.npz") as file:
        x, y, bayes = file["x"], file["y"], file["bayes"]
    network = pretrained.load_denoiser(folders / "denoiser.safetensors")
    of_class, of_all = scores.denoiser(*network, jnp.asarray(y)), scores.denoiser(*network)
    expected = scores.bayes_gradient(of_class, of_all, jnp.asarray(x), sigma_pm1=1.0)
    np.testing.assert_allclose(bayes, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    _, apply_fn = pags_measuring.model_of(folders / "train", trained, unit)
    with np.load(folders / "alignment" / "gradients" / f"{store.unit_name(unit)}.npz") as file:
        for target in ("logit_sum", "logit", "log_prob"):
            expected = input_gradients(apply_fn, jnp.asarray(x), jnp.asarray(y), target=target)
            np.testing.assert_allclose(file[target], expected, rtol=1e-4, atol=1e-6)


def test_distractor_rows_hold_both_halves_and_their_ratio(folders, images):
    table = store.read_rows(folders / "distractor")
    assert len(table) == 3 * 2
    assert all(row["ratio"] == pytest.approx(row["signal"] / row["distractor"]) for row in table)
    trained = pags_measuring.trained_rows(folders / "train")
    (row,) = (row for row in table if (row["strength"], row["sigma"]) == (1.0, 1.0))
    unit = {name: row[name] for name in ("loss", "strength", "seed")}
    _, apply_fn = pags_measuring.model_of(folders / "train", trained, unit)
    x = to_float(images.test_x[np.random.default_rng(0).permutation(40)[:10]])
    noise = (
        jax.random.normal(jax.random.key(0), (4, *x.shape), x.dtype).at[:, :, :, 4:].set(0)
    )  # The left is the signal.
    moved = [jnp.abs(jax.nn.softmax(apply_fn(x + u)) - jax.nn.softmax(apply_fn(x))).sum(1).mean() for u in noise]
    assert row["signal"] == pytest.approx(np.mean(moved), rel=1e-4)
    assert row["signal"] != pytest.approx(row["distractor"], rel=1e-2)


def test_figures_are_drawn_from_the_rows_alone(folders, tmp_path):
    runs = [word for name in ("robustness", "alignment", "distractor") for word in (f"--{name}", folders / name)]
    assert call("pags_figures", *runs, "--loss", "smoothness", "--out", tmp_path) == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"regimes.png", "noise.png", "alignment.png", "gradients.png", "distractor.png"}
    assert call("pags_figures", *runs[:2], "--out", tmp_path / "two") == 0
    assert {path.name for path in (tmp_path / "two").iterdir()} == {"regimes.png", "noise.png"}


def test_the_report_shows_every_run(folders, tmp_path):
    for name in ("train", "robustness", "alignment", "distractor"):
        (tmp_path / f"pags_{name}").symlink_to(folders / name)
    runs = [word for name in ("robustness", "alignment", "distractor") for word in (f"--{name}", folders / name)]
    assert call("pags_figures", *runs, "--loss", "smoothness", "--out", tmp_path / "pags_figures") == 0
    path = report.write(tmp_path / "report.html", "Title", pags_report.sections(tmp_path))
    page = path.read_text(encoding="utf-8")
    for said in ("Does each sweep show it?", "Strengths of each regime", "Where the alignment", "Change under noise"):
        assert said in page
    assert page.count("data:image/png") == 6


def test_what_no_image_has_is_none():
    values, valid = np.array([1.0, 3.0, np.nan]), np.array([True, True, False])
    assert pags_measuring.summary("on", values, valid) == {"on": 2.0, "on_error": pytest.approx(1 / np.sqrt(2))}
    assert pags_measuring.summary("on", values, np.zeros(3, bool)) == {"on": None, "on_error": None}


def test_curves_leave_gaps_for_missing_models():
    table = [
        {"loss": "smoothness", "strength": strength, "seed": seed, "on": 10 * strength + seed}
        for strength, seed in ((2.0, 0), (1.0, 0), (1.0, 1))
    ]
    table.append({"loss": "smoothness", "strength": 2.0, "seed": 1, "on": None})
    strengths, (on,) = pags_figures.curves(table, "smoothness", "on")
    np.testing.assert_array_equal(strengths, [1, 2])
    np.testing.assert_array_equal(on, [[10, 11], [20, np.nan]])


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("pags_robustness", ["--trained", "nowhere"], "nowhere/rows.jsonl is missing"),
        ("pags_alignment", ["--trained", "nowhere"], "train first"),
        ("pags_robustness", ["--images", "41"], "--images: there are 40 test images, got 41"),
        (
            "pags_robustness",
            ["--images", "5"],
            "--autoencoder: it is for images of (28, 28, 1), those here",
        ),
        ("pags_alignment", ["--denoiser", "nothing.safetensors", *MEASURING], "no file nothing.safetensors"),
        ("pags_figures", [], "name at least one run"),
        ("pags_figures", ["--robustness", "nowhere"], "nowhere/rows.jsonl is missing"),
    ],
)
def test_what_cannot_be_done_is_one_line(name, words, said, folders, tmp_path, capsys):
    if name != "pags_figures" and "--trained" not in words:
        words = ["--trained", folders / "train", *words]
    assert call(name, *words, "--out", tmp_path / "run") == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
