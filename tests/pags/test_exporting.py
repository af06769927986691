"""Programs of saved networks, run without this package's modules, against the networks themselves."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import config

from pags_jax import models

SHAPE = (10, 12, 3)
WITHOUT_US = """
import sys
from pathlib import Path
import jax, jax.export, numpy as np, safetensors.numpy
path = Path(sys.argv[1])
program = jax.export.deserialize(bytearray(path.with_suffix(".jax_export").read_bytes()))
logits = program.call(safetensors.numpy.load_file(path), np.load(path.with_suffix(".npy")))
assert not {"flax", "pags_jax"} & {name.split(".")[0] for name in sys.modules}
np.save(path.with_suffix(".npy"), logits)
"""


def saved(model, path, shape=SHAPE, **options):
    variables = models.init(model, jnp.zeros((1, *shape)), key=jax.random.key(0))
    # A fresh network with zeros in its last layer would be equal to any other one.
    draw = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: leaf + jnp.float32(0.1) * draw.random(leaf.shape, np.float32), variables)
    return models.save(path, model, variables, {"epochs": 3}, **options)


@pytest.fixture(scope="module", autouse=True)
def symbolic_shapes():
    """Jaxtyping, which checks shapes in tests alone, takes a number that is not known yet for a wrong one."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    model = models.ResNet(classes=4, blocks=(1,), width=0.125, stem=7)
    path = saved(model, tmp_path_factory.mktemp("exported") / "classifier.safetensors")
    models.export(path, image_shape=SHAPE)
    return path


def test_a_program_is_its_network_for_any_number_of_images_and_so_are_its_gradients(classifier):
    (run, said), (apply_fn, _) = models.load_exported(classifier), models.load_pretrained(classifier)
    for n in (1, 3):
        x = jnp.asarray(np.random.default_rng(n).random((n, *SHAPE), np.float32))
        (out, pull), (expected, pull_expected) = (jax.vjp(jax.jit(f), x) for f in (run, apply_fn))
        assert out.shape == (n, 4)
        np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)
        gradient = pull_expected(jnp.ones_like(out))[0]
        np.testing.assert_allclose(pull(jnp.ones_like(out))[0], gradient, atol=1e-5 * float(jnp.abs(gradient).max()))
    assert said["inputs"]["images"] == ["n", *SHAPE]
    assert (said["outputs"], said["about"]) == ({"logits": ["n", 4]}, {"epochs": 3})
    assert said["platforms"] == ["cpu", "cuda", "tpu"]


def test_a_program_runs_where_neither_this_package_nor_flax_is(classifier):
    x = np.random.default_rng(0).random((2, *SHAPE), np.float32)
    np.save(classifier.with_suffix(".npy"), x)
    command = [sys.executable, "-c", WITHOUT_US, str(classifier)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=classifier.parent)
    assert done.returncode == 0, done.stderr
    expected = models.load_pretrained(classifier)[0](jnp.asarray(x))
    np.testing.assert_allclose(np.load(classifier.with_suffix(".npy")), expected, rtol=1e-5, atol=1e-6)


def test_a_denoisers_program_takes_levels_and_classes(tmp_path):
    model = models.UNet(channels=1, classes=3, widths=(8,), blocks=1)
    path = saved(model, tmp_path / "denoiser.safetensors", (8, 8, 1), dtype="float16")
    models.export(path, image_shape=(8, 8, 1), platforms=("cpu",))
    (run, said), (denoise, _) = models.load_exported(path), models.load_pretrained(path)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 1)), jnp.float32)
    for sigma, labels in ((0.5, None), (jnp.array([0.1, 3.0]), jnp.array([0, 2])), (2.0, 1)):
        np.testing.assert_allclose(run(x, sigma, labels), jax.jit(denoise)(x, sigma, labels), rtol=1e-5, atol=1e-5)
    assert said["inputs"] == {**said["inputs"], "images": ["n", 8, 8, 1], "sigma": ["n"], "labels": ["n"]}
    assert said["ranges"]["labels"] == [0, 3]


def test_what_does_not_belong_together_is_refused(classifier, tmp_path):
    parts = [classifier.with_suffix(end) for end in (".safetensors", ".jax_export", ".json")]
    for part in parts:
        (tmp_path / part.name).write_bytes(part.read_bytes())
    path, program, description = (tmp_path / part.name for part in parts)
    other = models.ResNet(classes=4, blocks=(1,), width=0.125, stem=3)
    saved(other, path)
    with pytest.raises(ValueError, match=r"classifier\.safetensors is not the one of .*json: its SHA-256 is"):
        models.load_exported(path)
    path.write_bytes(parts[0].read_bytes())
    program.write_bytes(program.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"classifier\.jax_export is not the one of"):
        models.load_exported(program)
    description.write_text(json.dumps({"program_sha256": "0"}))
    with pytest.raises(ValueError, match=r"no description that models\.export wrote"):
        models.load_exported(path)
    program.unlink()
    with pytest.raises(FileNotFoundError, match=r"no file .*classifier\.jax_export; models\.export writes it"):
        models.load_exported(path)


def test_an_autoencoder_is_not_exported(tmp_path):
    path = saved(models.Autoencoder((8, 8, 1), 4, (8,)), tmp_path / "auto.safetensors", (8, 8, 1))
    with pytest.raises(ValueError, match="holds an autoencoder, which is two functions"):
        models.export(path, image_shape=(8, 8, 1))
