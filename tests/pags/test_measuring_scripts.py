"""The scripts that measure a training run's models: one small sweep, all measures, figures and what is refused."""

import gzip
import importlib
import shutil
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pags_jax import datasets, models, robustness, samples, scores, statistics
from pags_jax.gradients import input_gradients
from pags_jax.images import to_float
from scripts import registry
from scripts.harness import cli, report, rows, store
from scripts.harness.experiment import Results
from scripts.pags import alignment, certify, distractor, manifolds, measuring, sweeps
from scripts.pags import robustness as pags_robustness
from tests.pags.test_train_script import sample

pytestmark = pytest.mark.slow  # Whole scripts run.

MEASURING = ("--manifold", "local_pca", "--rank", "3", "--neighbours", "6", "--images", "10")


def call(name, *words):
    module = importlib.import_module(f"scripts.{name.replace('_', '.', 1)}")
    return module.EXPERIMENT.run([str(word) for word in words])


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
    variables = jax.jit(unet.init)(jax.random.key(0), to_float(images.test_x[:1]))
    variables = jax.tree.map(
        lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(1), leaf.shape, leaf.dtype), variables
    )
    models.save(root / "denoiser.safetensors", unet, variables, {})
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
    trained = measuring.trained_rows(folders / "train")
    seen = measuring.sample(config)
    chosen = np.random.default_rng(0).permutation(40)[:10]
    np.testing.assert_array_equal(seen.x, to_float(images.test_x[chosen]))
    basis = manifolds.basis_of(config, seen)
    noise = jax.random.normal(jax.random.fold_in(jax.random.key(0), 1), (2, *seen.x.shape), jnp.float32)
    (row,) = (row for row in table if (row["strength"], row["eps_l2"]) == (1.0, 2.6))
    (weights,) = (line["weights"] for line in trained if line["strength"] == 1.0)
    apply_fn = jax.jit(models.evaluator(*models.load(folders / "train" / weights)[:2]))
    expected = {"on": [], "off": []}
    for draw in noise:
        for side, unit in zip(("on", "off"), robustness.directions(basis, draw), strict=True):
            moved = jax.nn.softmax(apply_fn(seen.x + 2.6 * unit)) - jax.nn.softmax(apply_fn(seen.x))
            expected[side].append(jnp.abs(moved).sum(1).mean())
    for side, values in expected.items():
        assert row[side] == pytest.approx(np.mean(values), rel=1e-4)
    assert row["invalid"] == 0


@pytest.mark.parametrize(("words", "expected"), [((), "trained"), (("--folder", "moved"), Path("moved"))])
def test_images_may_lie_elsewhere_than_in_training(folders, images, monkeypatch, words, expected):
    asked = []
    monkeypatch.setattr(datasets, "load", lambda name, *, folder, **options: asked.append(folder) or images)
    trained = ["--trained", str(folders / "train"), "--images", "10"]
    config = cli.parse(pags_robustness.Config, [*trained, *words])
    table = [row | {"config.folder": "trained"} for row in measuring.trained_rows(folders / "train")]
    monkeypatch.setattr(measuring, "trained_rows", lambda folder: table)
    assert len(measuring.sample(config).x) == 10
    assert asked == [expected]


@pytest.mark.parametrize(("name", "columns"), [("robustness", ("on", "off")), ("alignment", ("cosine", "off_share"))])
def test_the_values_of_all_images_lie_beside_the_rows(folders, name, columns):
    table = store.read_rows(folders / name)
    for unit in {row["unit"] for row in table}:
        part = [row for row in table if row["unit"] == unit]
        with np.load(folders / name / "values" / f"{unit}.npz") as file:
            for column in columns:
                assert file[column].shape == (len(part), 10)
                means = [row[column] for row in part]
                np.testing.assert_allclose(file[column].mean(1), means, rtol=1e-4, atol=1e-6)


def test_models_trained_under_noise_are_compared_at_twice_their_noise(folders, images, monkeypatch):
    """Their scores are made once, with those of the levels that are asked for; other losses add none."""
    monkeypatch.setattr(datasets, "load", lambda name, *, folder, **options: images)
    strengths = {"randomized_smoothing": (0.25, 0.05), "smoothness": (3.0,), "cross_entropy": (0.0,)}
    first = measuring.trained_rows(folders / "train")[0]
    table = [first | {"loss": loss, "strength": s} for loss, found in strengths.items() for s in found]
    monkeypatch.setattr(measuring, "trained_rows", lambda folder: table)
    words = ("--trained", folders / "train", *MEASURING, "--denoiser", folders / "denoiser.safetensors")
    config = cli.parse(alignment.Config, [*map(str, words), "--sigmas-pm1", "0.5", "1"])
    assert list(alignment.setup(config)[2]) == [0.5, 1.0, 0.1]


def test_alignment_rows_say_what_was_compared(folders):
    table = store.read_rows(folders / "alignment")
    pairs = {("logit_sum", "unconditional"), ("log_sum_exp", "unconditional"), ("logit", "conditional")}
    pairs |= {("log_prob", "bayes")}
    assert {(row["target"], row["score"]) for row in table} == pairs
    assert len(table) == 3 * 3 * 4
    assert {row["sigma_pm1"] for row in table} == {0.5, 1.0, 2.0}
    for row in table:
        assert -1 <= row["cosine"] <= 1
        assert row["similarity"] < 1
        assert 0 <= row["off_share"] <= 1
    trained = measuring.trained_rows(folders / "train")
    unit = measuring.units_of(trained)[0]
    with np.load(folders / "alignment" / "scores_1.npz") as file:
        x, y, bayes = file["x"], file["y"], file["bayes"]
    network = models.load(folders / "denoiser.safetensors")[:2]
    of_class, of_all = scores.denoiser(*network, jnp.asarray(y)), scores.denoiser(*network)
    expected = jax.jit(partial(scores.bayes_gradient, sigma_pm1=1.0))(of_class, of_all, jnp.asarray(x))
    np.testing.assert_allclose(bayes, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    _, apply_fn = measuring.model_of(folders / "train", **unit)
    with np.load(folders / "alignment" / "gradients" / f"{store.unit_name(unit)}.npz") as file:
        for target in ("logit_sum", "logit", "log_prob"):
            expected = jax.jit(partial(input_gradients, apply_fn, target=target))(jnp.asarray(x), jnp.asarray(y))
            np.testing.assert_allclose(file[target], expected, rtol=1e-4, atol=1e-6)


def test_distractor_rows_hold_both_halves_and_their_ratio(folders, images):
    table = store.read_rows(folders / "distractor")
    assert len(table) == 3 * 2
    assert all(row["ratio"] == pytest.approx(row["signal"] / row["distractor"]) for row in table)
    (row,) = (row for row in table if (row["strength"], row["sigma"]) == (1.0, 1.0))
    unit = {name: row[name] for name in ("loss", "strength", "seed")}
    _, apply_fn = measuring.model_of(folders / "train", **unit)
    x = to_float(images.test_x[np.random.default_rng(0).permutation(40)[:10]])
    noise = (
        jax.random.normal(jax.random.key(0), (4, *x.shape), x.dtype).at[:, :, :, 4:].set(0)
    )  # The left is the signal.
    moved = [jnp.abs(jax.nn.softmax(apply_fn(x + u)) - jax.nn.softmax(apply_fn(x))).sum(1).mean() for u in noise]
    assert row["signal"] == pytest.approx(np.mean(moved), rel=1e-4)
    assert row["signal"] != pytest.approx(row["distractor"], rel=1e-2)


@pytest.fixture(scope="module")
def figures(folders, tmp_path_factory):
    """Of all measures, one loss."""
    runs = [word for name in ("robustness", "alignment", "distractor") for word in (f"--{name}", folders / name)]
    out = tmp_path_factory.mktemp("figures") / "pags_figures"
    assert call("pags_figures", *runs, "--out", out) == 0
    return out


def test_figures_are_drawn_from_the_rows_alone(folders, figures, tmp_path):
    names = {path.name for path in figures.iterdir()}
    drawn = {"regimes_1.png", "noise.png", "alignment.png", "gradients_smoothness.png", "distractor.png"}
    assert names == {*drawn, "alignment_by_robustness.png"}
    assert call("pags_figures", "--robustness", folders / "robustness", "--out", tmp_path / "two") == 0
    assert {path.name for path in (tmp_path / "two").iterdir()} == {"regimes_1.png", "noise.png"}


PARTS = ("pags_train", "pags_robustness", "pags_figures", "pags_distractor")


def results_of(folder, name):
    """A part as reproduce's report reads it."""
    folders = {path.name: path for path in folder.glob("pags_*")}
    table = store.read_rows(folder / name) if registry.experiment(name).rows_of else []
    return Results(folder / name, table, folders)


def page_of(folder):
    """All sections on gradients as a page."""
    sections = [
        report.Section(name, registry.experiment(name).section(results_of(folder, name)))
        for name in (*PARTS, "pags_alignment")
    ]
    return report.write(folder / "report.html", "Title", sections).read_text(encoding="utf-8")


def test_the_report_shows_every_run(folders, figures, tmp_path):
    for name in ("train", "robustness", "alignment", "distractor"):
        (tmp_path / f"pags_{name}").symlink_to(folders / name)
    (tmp_path / "pags_figures").symlink_to(figures)
    page = page_of(tmp_path)
    for text in ("Does each sweep show it?", "Strengths of each regime", "looks most like the score", "under noise on"):
        assert text in page
    assert "what predicts it" in page
    assert page.count("data:image/png") == 7
    results = results_of(tmp_path, "pags_figures")
    found = [claim for name in PARTS for claim in registry.experiment(name).claims(results_of(tmp_path, name))]
    assert len(found) == 7
    assert all(claim.number and claim.verdict in ("shown", "partly", "not shown") for claim in found)
    assert results.rows == []


def test_what_no_image_has_is_none():
    values, valid = np.array([1.0, 3.0, np.nan]), np.array([True, True, False])
    assert statistics.mean_and_error("on", values, valid) == {"on": 2.0, "on_error": pytest.approx(1 / np.sqrt(2))}
    assert statistics.mean_and_error("on", values, np.zeros(3, bool)) == {"on": None, "on_error": None}


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("pags_robustness", ["--trained", "nowhere"], "nowhere/rows.jsonl is missing"),
        ("pags_alignment", ["--trained", "nowhere"], "train first"),
        ("pags_robustness", [*MEASURING, "--images", "41"], "--images: there are 40 test images, got 41"),
        (
            "pags_robustness",
            ["--images", "5"],
            "autoencoder.safetensors is for images of fashion_mnist_full, the models in",
        ),
        ("pags_alignment", ["--denoiser", "nothing.safetensors", *MEASURING], "no file nothing.safetensors"),
        ("pags_alignment", MEASURING, "are of distractor; python -m scripts.pags.score trains none for distractor"),
        (
            "pags_robustness",
            [*MEASURING, "--rank", "6"],
            "--rank: 6 neighbours (--neighbours) with 64 values each give",
        ),
        ("pags_robustness", [*MEASURING, "--neighbours", "91"], "--neighbours: expected 2 to 90, the training images"),
        ("pags_robustness", [*MEASURING, "--neighbours", "1"], "--neighbours: expected 2 to 90, the training images"),
        ("pags_figures", [], "name at least one run"),
        ("pags_figures", ["--robustness", "nowhere"], "--robustness: nowhere/rows.jsonl is missing"),
    ],
)
def test_what_cannot_be_done_is_one_line(name, words, said, folders, tmp_path, capsys):
    if name != "pags_figures" and "--trained" not in words:
        words = ["--trained", folders / "train", *words]
    assert call(name, *words, "--out", tmp_path / "run") == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


# ------------------------------------------------------------------------------------- what a run was measured with
@pytest.fixture
def copied(folders, images, tmp_path, monkeypatch):
    """A copy of the sweep that may be changed, and the denoiser."""
    shutil.copytree(folders / "train", tmp_path / "train")
    shutil.copy(folders / "denoiser.safetensors", tmp_path)
    monkeypatch.setattr(datasets, "load", lambda name, *, folder, **options: images)
    return tmp_path


def measured(name, root, *words):
    if name == "pags_alignment":
        words = ("--denoiser", root / "denoiser.safetensors", "--sigmas-pm1", "1", *words)
    if name == "pags_distractor":
        return call(name, "--trained", root / "train", "--images", "10", "--sigmas", "1", "--out", root / "run")
    return call(name, "--trained", root / "train", *MEASURING, *words, "--out", root / "run")


@pytest.mark.parametrize("name", ["pags_robustness", "pags_alignment", "pags_distractor"])
def test_changed_models_are_another_configuration(name, copied, capsys):
    assert measured(name, copied) == 0
    before = (copied / "run" / "rows.jsonl").read_bytes()
    (digest,) = {row["config.trained_sha256"] for row in store.read_rows(copied / "run")}
    assert len(digest) == 64
    (copied / "run" / "units" / next((copied / "run" / "units").iterdir()).name).unlink()
    weights = sorted((copied / "train" / "models").iterdir())
    weights[0].write_bytes(weights[1].read_bytes())
    capsys.readouterr()
    assert measured(name, copied) == 1
    assert "another configuration (trained_sha256: " in capsys.readouterr().err
    assert (copied / "run" / "rows.jsonl").read_bytes() == before
    weights[0].unlink()
    assert measured(name, copied) == 1
    error = capsys.readouterr().err
    assert f"--trained: the model {weights[0]} is missing; put it back, or train again" in error


def test_a_changed_denoiser_is_another_configuration(copied, capsys):
    assert measured("pags_alignment", copied) == 0
    path = copied / "denoiser.safetensors"
    model, variables, _ = models.load(path)
    models.save(path, model, jax.tree.map(lambda leaf: leaf + 0.1, variables), {})
    assert measured("pags_alignment", copied) == 1
    assert "another configuration (denoiser_sha256: " in capsys.readouterr().err


# --------------------------------------------------------------------------------------- whose images a file is for
def config_of(kind=alignment.Config, **values):
    return kind(trained=manifolds.Path("runs/mine"), **values)


@pytest.fixture
def trained_on(monkeypatch):
    """Makes a training run say what images its models are of."""
    return lambda dataset: monkeypatch.setattr(measuring, "trained_rows", lambda folder: [{"config.dataset": dataset}])


@pytest.mark.parametrize(
    ("dataset", "values", "said"),
    [
        (
            "mnist",
            {},
            "--autoencoder: .* of fashion_mnist_full, .* runs/mine are of mnist; train one with .*ncoder --d",
        ),
        ("mnist_test", {"manifold": "denoiser"}, "--denoiser: .* are of mnist_test; python -m scripts.pags.score tr"),
        ("cifar10", {"manifold": "local_pca"}, "--denoiser: .* train one with .*pags.score --dataset cifar10$"),
        ("distractor", {"manifold": "local_pca"}, "--denoiser: .* are of distractor"),
    ],
)
def test_bundled_files_are_for_their_own_images(dataset, values, said, trained_on):
    trained_on(dataset)
    with pytest.raises(ValueError, match=said):
        config_of(**values).files()


def test_networks_that_are_not_needed_are_not_asked_for(trained_on):
    """Of experiments on scores alone the manifold says nothing, and of tangent spaces by neighbours no network."""
    trained_on("fashion_mnist")
    assert set(config_of().files()) == {"autoencoder", "denoiser"}
    assert set(config_of(certify.Config).files()) == {"denoiser"}
    assert set(config_of(pags_robustness.Config).files()) == {"autoencoder"}
    assert config_of(pags_robustness.Config, manifold="local_pca").files() == {}


@pytest.mark.parametrize(
    ("known", "dataset", "fits"),
    [
        ("fashion_mnist_full", "fashion_mnist", True),
        ("fashion_mnist", "fashion_mnist_full", True),
        ("mnist", "mnist_test", True),
        ("mnist", "fashion_mnist", False),
        ("cifar10", "cifar100", False),
    ],
)
def test_parts_of_a_data_set_hold_its_images(known, dataset, fits, tmp_path, trained_on):
    path = tmp_path / "coder.safetensors"
    coder = models.Autoencoder((6, 6, 1), latent=3, widths=(4,))
    models.save(path, coder, fresh(coder), {"config": {"dataset": known}})
    trained_on(dataset)
    config = config_of(pags_robustness.Config, autoencoder=path)
    if fits:
        assert config.files() == {"autoencoder": path}
    else:
        with pytest.raises(ValueError, match=f"{path} is for images of {known}, .* are of {dataset}"):
            config.files()


def fresh(model):
    shape = model.shape if isinstance(model, models.Autoencoder) else (8, 8, model.channels)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *shape), jnp.float32))
    return jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), shapes)


def test_a_file_that_does_not_say_is_taken_if_its_shape_fits(images, tmp_path, capsys, trained_on):
    trained_on("distractor")
    seen = samples.draw(images, 2, seed=0)
    coder, unet = models.Autoencoder((6, 6, 1), latent=3, widths=(4,)), models.UNet(3, 3, widths=(8,), blocks=1)
    paths = {}
    for name, model in (("autoencoder", coder), ("denoiser", unet)):
        paths[name] = tmp_path / f"{name}.safetensors"
        models.save(paths[name], model, fresh(model), {})
    config = config_of(**paths)
    assert config.files() == paths
    assert capsys.readouterr().err.count("does not say what images it is for; it must be distractor") == 2
    with pytest.raises(ValueError, match=r"--autoencoder: it is for images of \(6, 6, 1\), those here are \(8, 8, 1\)"):
        manifolds.basis_of(config, seen)
    with pytest.raises(ValueError, match="--denoiser: it is for images of 3 channels, those here have 1"):
        manifolds.denoiser_of(config, seen)


# -------------------------------------------------------------------------------------------- what is not finite
def test_images_without_a_finite_change_are_left_out_and_counted(monkeypatch):
    changes = {True: jnp.array([1.0, jnp.nan, 3.0, 5.0]), False: jnp.array([1.0, 1.0, 1.0, jnp.inf])}

    def measure(apply_fn, x, mask, *, noise, sigma):
        return changes[bool(mask[0, 0, 0])]

    monkeypatch.setattr(distractor.compiling, "jitted", lambda function: measure)
    config = distractor.Config(sigmas=(0.5,))
    ready = jnp.zeros((4, 2, 2, 1)), jnp.ones((4, 2, 2), bool), jnp.zeros((1, 4, 2, 2, 1))
    (row,) = distractor.rows_of(config, ready, {}, None)
    assert (row["signal"], row["distractor"], row["ratio"], row["invalid"]) == (2.0, 1.0, 2.0, 2)
    assert row["signal_error"] == pytest.approx(1 / np.sqrt(2))
    changes[True] = jnp.full(4, jnp.nan)
    (row,) = distractor.rows_of(config, ready, {}, None)
    assert (row["signal"], row["distractor"], row["ratio"], row["invalid"]) == (None, None, None, 4)


# ------------------------------------------------------------------------------------ figures of what there is
@pytest.mark.parametrize(
    ("flag", "run", "other", "wanted"),
    [
        ("--robustness", "alignment", "pags_alignment", "pags_robustness"),
        ("--alignment", "robustness", "pags_robustness", "pags_alignment"),
        ("--distractor", "robustness", "pags_robustness", "pags_distractor"),
        ("--trained", "distractor", "pags_distractor", "pags_train"),
    ],
)
def test_rows_of_another_script_are_one_line(flag, run, other, wanted, folders, tmp_path, capsys):
    assert call("pags_figures", flag, folders / run, "--out", tmp_path / "run") == 1
    said = f"error: {flag}: {folders / run} holds rows of {other}, not of {wanted}\n"
    assert capsys.readouterr().err == said


def test_a_gradient_that_no_run_compares_is_no_choice(folders, tmp_path, capsys):
    with pytest.raises(SystemExit):
        call("pags_figures", "--alignment", folders / "alignment", "--target", "loss", "--out", tmp_path)
    assert "logit_sum" in capsys.readouterr().err


def only(folders, tmp_path, name, **kept):
    """A run's folder with some of its rows."""
    shutil.copytree(folders / name, tmp_path / name)
    table = [row for row in store.read_rows(folders / name) if all(row[key] == value for key, value in kept.items())]
    (tmp_path / name / "rows.jsonl").write_text(rows.to_jsonl(table), encoding="utf-8")
    return tmp_path / name


@pytest.mark.parametrize("name", ["alignment", "robustness"])
def test_a_sweep_of_nothing_says_what_is_missing(name, folders, tmp_path, capsys):
    folder = only(folders, tmp_path, name, loss="cross_entropy")
    assert call("pags_figures", f"--{name}", folder, "--out", tmp_path / "run") == 1
    error = capsys.readouterr().err
    assert f"--{name}: {folder} holds cross_entropy alone, which has no strengths to draw against; train" in error
    assert error.count("\n") == 1


def test_figures_of_published_rows(folders, tmp_path):
    for name in ("robustness", "alignment"):
        content = (folders / name / "rows.csv").read_bytes()
        (tmp_path / f"{name}.csv.gz").write_bytes(gzip.compress(content))
        again = sweeps.read(tmp_path / f"{name}.csv.gz", name)
        for one, other in zip(again, store.read_rows(folders / name), strict=True):
            assert {key: value for key, value in one.items() if not key.startswith("env.")} == {
                key: value for key, value in other.items() if not key.startswith("env.")
            }
    runs = [word for name in ("robustness", "alignment") for word in (f"--{name}", tmp_path / f"{name}.csv.gz")]
    assert call("pags_figures", *runs, "--out", tmp_path / "drawn") == 0
    names = {"regimes_1.png", "alignment.png", "alignment_by_robustness.png"}
    assert {path.name for path in (tmp_path / "drawn").iterdir()} == names
    (tmp_path / "alignment.csv.gz").write_bytes(b"no such thing")
    assert call("pags_figures", *runs, "--out", tmp_path / "again") == 1


def test_the_report_survives_a_loss_without_a_usable_map(folders, tmp_path):
    """Every measure of one loss is None, as where all its gradients are zero."""
    for name, columns in (("alignment", ("cosine", "similarity", "off_share")), ("robustness", ("on", "off"))):
        folder = tmp_path / f"pags_{name}"
        shutil.copytree(folders / name, folder)
        gone = {column: None for measure in columns for column in (measure, f"{measure}_error")}
        table = [row | (gone if row["loss"] == "smoothness" else {}) for row in store.read_rows(folders / name)]
        (folder / "rows.jsonl").write_text(rows.to_jsonl(table), encoding="utf-8")
    (tmp_path / "pags_train").symlink_to(folders / "train")
    shutil.copytree(folders / "distractor", tmp_path / "pags_distractor")
    gone = dict.fromkeys(("signal", "distractor", "ratio"))
    table = [row | gone for row in store.read_rows(folders / "distractor")]
    (tmp_path / "pags_distractor" / "rows.jsonl").write_text(rows.to_jsonl(table), encoding="utf-8")
    runs = [
        word for name in ("robustness", "alignment", "distractor") for word in (f"--{name}", tmp_path / f"pags_{name}")
    ]
    assert call("pags_figures", *runs, "--out", tmp_path / "pags_figures") == 0
    page = page_of(tmp_path)
    assert "no usable map" in page
    assert "none: no usable model" in page
    assert "too few models to tell" in page
