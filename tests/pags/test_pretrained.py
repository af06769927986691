"""Files of trained models: they come back, damage is refused, and the shipped ones do what they are for."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pags_jax import datasets, models, scores
from pags_jax.datasets import pretrained
from pags_jax.images import to_float

ROOT = Path(__file__).resolve().parents[2]
UNET = models.UNet(channels=2, classes=3, widths=(4, 8), blocks=1, sigma_data=0.7)
CODER = models.Autoencoder((6, 6, 1), latent=3, widths=(4,))
ABOUT = {"config": {"epochs": 3}, "test_loss": 0.25}


def variables_of(model):
    shape = model.shape if isinstance(model, models.Autoencoder) else (8, 8, model.channels)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *shape), jnp.float32))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), shapes)


@pytest.mark.parametrize(("model", "load"), [(UNET, pretrained.load_denoiser), (CODER, pretrained.load_autoencoder)])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_model_comes_back(model, load, dtype, tmp_path):
    variables = variables_of(model)
    path = tmp_path / "model.safetensors"
    path.write_bytes(pretrained.pack(model, variables, ABOUT, dtype=dtype))
    again, restored = load(str(path))
    assert again == model
    assert pretrained.about(path) == ABOUT
    assert jax.tree.structure(restored) == jax.tree.structure(variables)
    for one, other in zip(jax.tree.leaves(restored), jax.tree.leaves(variables), strict=True):
        assert one.dtype == jnp.float32
        np.testing.assert_array_equal(one, np.asarray(other).astype(dtype).astype(np.float32))


def test_the_same_model_makes_the_same_bytes():
    """In processes whose hashes differ."""
    script = (
        "import sys, jax; from pags_jax import models; from pags_jax.datasets import pretrained\n"
        "model = models.Autoencoder((6, 6, 1), latent=3, widths=(4,))\n"
        "variables = jax.tree.map(lambda s: 0.5 * jax.numpy.ones(s.shape), pretrained._shapes(model))\n"
        "sys.stdout.buffer.write(pretrained.pack(model, variables, {'b': 1, 'a': {'d': 2, 'c': 3}}))"
    )
    contents = {
        subprocess.run(
            [sys.executable, "-c", script], env=os.environ | {"PYTHONHASHSEED": seed}, stdout=-1, check=True, cwd=ROOT
        ).stdout
        for seed in ("1", "2", "3", "4")
    }
    assert len(contents) == 1


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(pretrained.pack(UNET, variables_of(UNET), ABOUT))
    return path


@pytest.mark.parametrize("damage", ["truncate", "header", "metadata", "array", "longer", "text", "empty"])
def test_damage_is_refused(saved, damage):
    content = bytearray(saved.read_bytes())
    header = 8 + struct.unpack("<Q", content[:8])[0]
    if damage == "truncate":
        content = content[: len(content) // 2]
    elif damage == "header":
        content[3] ^= 0x10
    elif damage == "metadata":
        content = content.replace(b"0.25", b"0.15")
    elif damage == "array":
        content[header + 100] ^= 0x01
    elif damage == "longer":
        content += b"\0\0\0\0"
    else:
        content = bytearray(b"weights" if damage == "text" else b"")
    assert content != saved.read_bytes()
    saved.write_bytes(content)
    for read in (pretrained.load_denoiser, pretrained.about):
        with pytest.raises(ValueError, match="damaged") as refused:
            read(saved)
        assert str(saved) in str(refused.value)


def rewritten(path, architecture, *, kind="denoiser", without="", extra=()):
    """The file with other contents, and the SHA-256 that goes with them."""
    arrays, metadata = pretrained._read(path)
    metadata |= {"architecture": json.dumps(json.loads(metadata["architecture"]) | architecture), "kind": kind}
    arrays = {name: array for name, array in arrays.items() if name != without} | {n: np.zeros(2) for n in extra}
    metadata["sha256"] = pretrained._digest(arrays, metadata)
    path.write_bytes(pretrained.save(arrays, metadata))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"architecture": {"widths": [4, 12]}}, r"weights of another architecture \(params/.*: expected \[.*got \["),
        ({"architecture": {"classes": 5}}, r"params/Embed_0/embedding: expected \[6, 8\], got \[4, 8\]"),
        ({"architecture": {"blocks": 2}}, "weights of another architecture"),
        ({"architecture": {"depth": 2}}, "cannot build: .*depth"),
        ({"architecture": {"widths": []}}, "cannot build"),
        ({"architecture": {}, "without": "params/Dense_0/bias"}, r"Dense_0/bias: expected \[8\], got none"),
        ({"architecture": {}, "extra": ["params/more"]}, r"params/more: expected none, got \[2\]"),
        ({"architecture": {}, "kind": "autoencoder"}, "another kind: expected denoiser, got autoencoder"),
        ({"architecture": {}, "kind": "classifier"}, "another kind: expected denoiser, got classifier"),
    ],
)
def test_weights_of_another_architecture_are_refused(saved, change, said):
    rewritten(saved, change.pop("architecture"), **change)
    with pytest.raises(ValueError, match=said) as refused:
        pretrained.load_denoiser(saved)
    assert str(saved) in str(refused.value)


def test_other_files_are_refused(tmp_path, saved):
    with pytest.raises(ValueError, match=r"no file .*nothing\.safetensors"):
        pretrained.load_denoiser(tmp_path / "nothing.safetensors")
    saved.write_bytes(pretrained.save({"x": np.zeros(3)}))
    with pytest.raises(ValueError, match="no model of this package: it lacks the metadata"):
        pretrained.load_denoiser(saved)


def test_what_cannot_be_packed_is_refused():
    variables = variables_of(UNET)
    with pytest.raises(ValueError, match="expected a UNet, an Autoencoder or a published network, got a LeNet"):
        pretrained.pack(models.LeNet(classes=3), variables, {})
    with pytest.raises(ValueError, match="these variables: weights of another architecture"):
        pretrained.pack(UNET, variables_of(CODER), {})
    large = jax.tree.map(lambda leaf: leaf + 1e6, variables)
    with pytest.raises(ValueError, match="values that are not finite in float16"):
        pretrained.pack(UNET, large, {}, dtype="float16")
    pretrained.pack(UNET, large, {})


# --------------------------------------------------------------------------------------------- the shipped models
@pytest.fixture(scope="module")
def clothes():
    """Training images, and 200 test images with their labels; neither model was trained on any of the latter."""
    data = datasets.load("fashion_mnist")
    return data.train_x, to_float(data.test_x[:200]), data.test_y[:200]


@pytest.fixture(scope="module")
def spectrum(clothes):
    """Mean, eigenvalues and eigenvectors of the training pixels in [0, 1]."""
    flat = clothes[0][:4000].reshape(4000, -1) / 255
    return flat.mean(0), *np.linalg.eigh(np.cov(flat.T))


def test_shipped_files_are_small_and_say_how_they_were_trained():
    for name in ("denoiser", "autoencoder"):
        path = pretrained.FILES / f"fashion_mnist_{name}.safetensors"
        assert path.stat().st_size <= 3e6
        about = pretrained.about(path)
        assert about["config"]["dataset"] == "fashion_mnist_full"
        assert about["measured"]["train_rows"] == 60_000


@pytest.fixture(scope="module")
def denoised(clothes):
    """Mean squared errors per pixel in [-1, 1] by level and by what is told: nothing, the class, or another one."""
    model, variables = pretrained.fashion_mnist_denoiser()
    x, y = 2 * clothes[1] - 1, jnp.asarray(clothes[2])
    noise = jax.random.normal(jax.random.key(5), x.shape, x.dtype)
    denoise = jax.jit(lambda labels, x, sigma: scores.denoiser(model, variables, labels)(x, sigma))
    told = {"nothing": jnp.full_like(y, 10), "class": y, "another": (y + 1) % 10}
    return {
        (sigma, name): float(jnp.mean((denoise(labels, x + jnp.float32(sigma) * noise, sigma) - x) ** 2))
        for sigma in (0.1, 0.5, 1.2)
        for name, labels in told.items()
    }, np.asarray(noise)


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.2])
def test_the_shipped_denoiser_beats_the_best_linear_one(sigma, denoised, clothes, spectrum):
    """And so the noisy image itself, and the mean image."""
    errors, noise = denoised
    mean, values, vectors = spectrum
    x = np.asarray(clothes[1], float).reshape(len(noise), -1)
    noisy = x + sigma / 2 * noise.reshape(x.shape)
    shrunk = mean + ((noisy - mean) @ vectors * (values / (values + sigma**2 / 4))) @ vectors.T
    linear, constant = (4 * np.mean((guess - x) ** 2) for guess in (shrunk, mean))
    assert errors[sigma, "nothing"] < 0.8 * linear
    assert errors[sigma, "nothing"] < 0.8 * min(constant, sigma**2)
    assert errors[sigma, "class"] < errors[sigma, "another"]


def test_the_shipped_denoiser_uses_the_class_where_noise_hides_it(denoised):
    errors, _ = denoised
    assert errors[1.2, "class"] < errors[1.2, "nothing"] < errors[1.2, "another"]


def test_the_shipped_denoisers_loss_is_the_stated_one(denoised):
    """On other noise and other test images, so about."""
    measured = pretrained.about(pretrained.FILES / "fashion_mnist_denoiser.safetensors")["measured"]
    stated = measured["test_rms_error"][measured["sigma_pm1"].index(0.5)]
    assert np.sqrt(denoised[0][0.5, "nothing"]) == pytest.approx(stated, rel=0.1)


def test_the_shipped_autoencoder_beats_as_many_principal_components(clothes, spectrum):
    model, variables = pretrained.fashion_mnist_autoencoder()
    mean, _, vectors = spectrum
    x = clothes[1]
    decoded = models.decoder(model, variables)(models.encoder(model, variables)(x))
    assert decoded.min() >= 0
    assert decoded.max() <= 1
    error = float(jnp.mean((decoded - x) ** 2))
    flat = np.asarray(x, float).reshape(len(x), -1)
    basis = vectors[:, -model.latent :]
    principal = np.mean((mean + (flat - mean) @ basis @ basis.T - flat) ** 2)
    assert error < 0.9 * principal
    assert error < 0.2 * np.mean((mean - flat) ** 2)
    stated = pretrained.about(pretrained.FILES / "fashion_mnist_autoencoder.safetensors")["measured"]["test_error"]
    assert error == pytest.approx(stated, rel=0.15)
