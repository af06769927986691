"""Published classifiers on class folders: streamed measures against the pieces, in any batches, resized as stated."""

import importlib.util
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from pags_jax import alignment, bases, manifold, models, robustness, scores
from pags_jax.gradients import input_gradients
from pags_jax.images import to_float
from scripts.harness import report, store
from scripts.harness.experiment import Results
from scripts.pags import photographs

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("grain") is None, reason="grain is not installed"),
    pytest.mark.slow,
]
SIZES = ("--size", "16", "--score-size", "8", "--rank", "2")


def call(*words):
    return photographs.EXPERIMENT.run([str(word) for word in words])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six images of three classes, a denoiser at 8 pixels and two classifiers at 16, with random weights."""
    root, draw = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for label in range(3):
        (root / "images" / f"n0{label}").mkdir(parents=True)
        for k in range(2):
            pixels = draw.integers(0, 256, (20 + k, 18, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / "images" / f"n0{label}" / f"{k}.png")
    unet = models.UNet(channels=3, widths=(8,), blocks=1, classes=3, upsampling="resize")
    variables = unet.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3), jnp.float32))
    variables = jax.tree.map(
        lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(1), leaf.shape, leaf.dtype), variables
    )
    models.save(root / "denoiser.safetensors", unet, variables, {})
    for k in range(2):
        net = models.create("lenet", classes=3, width=0.25, activation="softplus")
        variables = net.init(jax.random.key(k), jnp.zeros((1, 16, 16, 3), jnp.float32))
        models.save(root / f"classifier{k}.safetensors", net, variables, {}, image_shape=(16, 16, 3))
    return root


@pytest.fixture(scope="module")
def runs(folder):
    """The same measurement in batches of six and of three."""
    for batch in (6, 3):
        words = ("--folder", folder / "images", "--denoiser", folder / "denoiser.safetensors", "--images", "6")
        words += ("--classifiers", *(folder / f"classifier{k}.safetensors" for k in range(2)), *SIZES)
        assert call(*words, "--batch-size", batch, "--out", folder / f"by{batch}") == 0
    return folder


def values(run):
    """All values, by image."""
    found = {}
    for path in (run / "values").glob("*.npz"):
        with np.load(path, allow_pickle=False) as file:
            for place, name in enumerate(file["image"]):
                found[str(name)] = {measure: file[measure][:, place] for measure in photographs.MEASURES}
    return found


def order(run):
    """The images in the order in which they were measured."""
    files = sorted((run / "values").glob("*.npz"), key=lambda path: int(path.stem.split("batch=")[1].split(",")[0]))
    return [str(name) for path in files for name in np.load(path, allow_pickle=False)["image"]]


def test_measures_are_those_of_the_pieces_and_of_the_image_alone(runs):
    """They are the same in other batches, and as put together here."""
    by_six, by_three = values(runs / "by6"), values(runs / "by3")
    assert sorted(by_six) == sorted(by_three) == [f"n0{label}/{k}.png" for label in range(3) for k in range(2)]
    for name, found in by_six.items():
        for measure in photographs.MEASURES:
            np.testing.assert_allclose(found[measure], by_three[name][measure], rtol=2e-3, atol=2e-4)
        assert np.all(found["on"] > 0)
        assert np.all(found["off"] > 0)
    apply_fn = models.load_pretrained(runs / "classifier1.safetensors")[0]
    denoise = models.load_pretrained(runs / "denoiser.safetensors")[0]
    from pags_jax.datasets.image_folders import read_image

    x = to_float(jnp.asarray(read_image(runs / "images" / "n02" / "1.png", 16))[None])
    y = jnp.array([2], jnp.int32)
    gradient = jax.jit(partial(input_gradients, target="logit"))(apply_fn, x, y)
    found = by_six["n02/1.png"]
    score = scores.score(denoise.of(y), alignment.resize(x, 8, antialias=True), sigma_pm1=1.2)
    half = gradient.reshape(1, 8, 2, 8, 2, 3).mean((2, 4))
    assert found["cosine"][1] == pytest.approx(float(alignment.cosine(half, score)[0]), abs=1e-3)
    (place,) = (k for k, name in enumerate(order(runs / "by6")) if name == "n02/1.png")
    key, _ = jax.random.split(jax.random.fold_in(jax.random.key(0), place))
    options = {"sigma_pm1": 0.2, "rank": 2, "key": key, "iterations": 8}
    basis = jax.jit(lambda x: manifold.denoiser_basis(denoise, x, **options))(alignment.resize(x, 8, antialias=True))
    share = robustness.off_manifold_share(gradient, bases.resize(basis, 16))
    assert found["off_share"][1] == pytest.approx(float(share[0]), abs=1e-3)
    assert found["correct"][1] == float(jnp.argmax(apply_fn(x), 1)[0] == 2)


def test_rows_are_means_of_the_values(runs):
    table = store.read_rows(runs / "by3")
    assert [(row["batch"], row["images"]) for row in table] == [(0, 3), (0, 3), (1, 3), (1, 3)]
    for row in table:
        with np.load(runs / "by3" / "values" / f"{row['unit']}.npz", allow_pickle=False) as file:
            place = int(row["classifier"].endswith("classifier1.safetensors"))
            assert row["cosine"] == pytest.approx(float(file["cosine"][place].mean()), rel=1e-4)
    experiment = photographs.EXPERIMENT
    section = report.Section(experiment.heading, experiment.section(Results(runs / "by3", table)))
    page = report.write(runs / "report.html", "Title", [section]).read_text(encoding="utf-8")
    assert "classifier1.safetensors" in page


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--folder", "nowhere"), "no folder nowhere"),
        (("--images", "7"), "holds 6 images, got 7"),
        (("--classifiers",), "name at least one file"),
        (("--denoiser", "classifier0.safetensors"), "is a classifier"),
    ],
)
def test_what_cannot_be_done_is_one_line(words, said, folder, tmp_path, capsys):
    given = {"--folder": folder / "images", "--images": "6", "--classifiers": folder / "classifier0.safetensors"}
    given["--denoiser"] = folder / "denoiser.safetensors"
    given[words[0]] = folder / words[1] if words[-1].endswith("safetensors") else words[1] if words[1:] else None
    flat = [word for pair in given.items() for word in pair if word is not None]
    assert call(*flat, *SIZES, "--out", tmp_path / "run") == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
