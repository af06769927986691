"""Published classifiers on class folders: streamed measures against the pieces, in any batches, resized as stated."""

import importlib.util

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

pytestmark = pytest.mark.skipif(importlib.util.find_spec("grain") is None, reason="grain is not installed")
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
    """The same measurement in batches of four and of three."""
    for batch in (4, 3):
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


def test_measures_are_those_of_the_pieces_and_of_the_image_alone(runs):
    """All but the deviations, whose noise is of the batch, are the same in other batches, and as put together here."""
    by_four, by_three = values(runs / "by4"), values(runs / "by3")
    assert sorted(by_four) == sorted(by_three) == [f"n0{label}/{k}.png" for label in range(3) for k in range(2)]
    for name, found in by_four.items():
        for measure in ("correct", "off_share", "cosine", "similarity"):
            np.testing.assert_allclose(found[measure], by_three[name][measure], rtol=2e-3, atol=2e-4)
        assert np.all(found["on"] > 0)
        assert np.all(found["off"] > 0)
    apply_fn = models.load_pretrained(runs / "classifier1.safetensors")[0]
    denoise = models.load_pretrained(runs / "denoiser.safetensors")[0]
    from pags_jax.datasets.image_folders import read_image

    x = to_float(jnp.asarray(read_image(runs / "images" / "n02" / "1.png", 16))[None])
    y = jnp.array([2], jnp.int32)
    gradient = input_gradients(apply_fn, x, y, target="logit")
    small = x.reshape(1, 8, 2, 8, 2, 3).mean((2, 4))
    found = by_four["n02/1.png"]
    score = scores.score(denoise.of(y), alignment.resize(x, 8, antialias=True), sigma_pm1=1.2)
    # Half as large and unfiltered: the mean of the four neighbours of each place, as torchvision's Resize.
    half = gradient.reshape(1, 8, 2, 8, 2, 3).mean((2, 4))
    np.testing.assert_allclose(alignment.resize(gradient, 8), half, atol=1e-6 * float(jnp.abs(half).max()) + 1e-9)
    assert found["cosine"][1] == pytest.approx(float(alignment.cosine(half, score)[0]), abs=1e-3)
    options = {"sigma_pm1": 0.2, "rank": 2, "key": jax.random.key(0), "iterations": 8}
    small_basis = manifold.denoiser_basis(denoise, alignment.resize(x, 8, antialias=True), **options)
    share = robustness.off_manifold_share(gradient, bases.resize(small_basis, 16))
    assert 0 < float(share[0]) < 1
    assert found["correct"][1] == float(jnp.argmax(apply_fn(x), 1)[0] == 2)
    assert small.shape == half.shape


def test_rows_are_means_of_the_values(runs):
    table = store.read_rows(runs / "by4")
    assert [(row["batch"], row["images"]) for row in table] == [(0, 4), (0, 4), (1, 2), (1, 2)]
    for row in table:
        with np.load(runs / "by4" / "values" / f"{row['unit']}.npz", allow_pickle=False) as file:
            place = int(row["classifier"].endswith("classifier1.safetensors"))
            assert row["cosine"] == pytest.approx(float(file["cosine"][place].mean()), rel=1e-4)
    experiment = photographs.EXPERIMENT
    section = report.Section(experiment.heading, experiment.section(Results(runs / "by4", table)))
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


def test_bases_of_larger_images_are_orthonormal_and_span_the_resized_vectors():
    basis = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (2, 48, 3)))[0].swapaxes(1, 2).reshape(2, 3, 4, 4, 3)
    found = bases.resize(basis, 7)
    flat = np.asarray(found).reshape(2, 3, -1)
    np.testing.assert_allclose(flat @ flat.swapaxes(1, 2), np.eye(3)[None].repeat(2, 0), atol=1e-10)
    larger = jax.vmap(lambda v: jax.image.resize(v, (3, 7, 7, 3), "bilinear"))(basis)
    np.testing.assert_allclose(jax.vmap(bases.project, (None, 1), 1)(found, larger), larger, atol=1e-10)
    same = bases.resize(basis, 4)
    angles = bases.principal_angles(same, basis)
    np.testing.assert_allclose(angles, 0, atol=1e-7)
    with pytest.raises(ValueError, match="at least that of images"):
        bases.resize(basis, 3)
