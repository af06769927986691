"""Networks in files: they come back, damage is refused, and what is written is written whole."""

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
from safetensors.numpy import save_file

from pags_jax import models, scores
from pags_jax.models import architectures, files, load_pretrained, read_pretrained

ROOT = Path(__file__).resolve().parents[2]
UNET = models.UNet(channels=2, classes=3, widths=(4, 8), blocks=1, sigma_data=0.7)
CODER = models.Autoencoder((6, 6, 1), latent=3, widths=(4,))
LENET = models.create("lenet", classes=3, activation="softplus")
PATCHES = models.create("resnet14", classes=4, stem=2, width=0.05, dtype=jnp.bfloat16)
VGG = models.create("vgg11", classes=2, width=0.05)
WIDE = models.Normalised(
    models.PreActivationResNet(classes=4, blocks=(1, 1), widths=(4, 6), stem=2), (0.5, 0.4, 0.3), (0.2,) * 3, True
)
SHAPES = {LENET: (8, 9, 1), PATCHES: (8, 8, 3), VGG: (32, 32, 1), WIDE: (8, 8, 3), UNET: (8, 8, 2), CODER: (6, 6, 1)}
ABOUT = {"config": {"epochs": 3}, "test_loss": 0.25}


def variables_of(model):
    image = jax.ShapeDtypeStruct((1, *SHAPES[model]), jnp.float32)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), shapes)


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("model", "dtype"),
    [*((model, "float32") for model in SHAPES), (LENET, "float16"), (PATCHES, "float16"), (UNET, "float16")],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_network_comes_back(model, dtype, tmp_path):
    variables = variables_of(model)
    path = tmp_path / "new" / "model.safetensors"
    shape = SHAPES[model] if model in (LENET, VGG) else None
    assert files.save(str(path), model, variables, ABOUT, dtype=dtype, image_shape=shape) == path
    assert [found.name for found in path.parent.iterdir()] == [path.name]
    (path.parent / "other").touch()
    assert path.stat().st_mode == (path.parent / "other").stat().st_mode  # Nobody is kept from reading it.
    again, restored, about = models.load(str(path), kind=architectures.kind_of(model))
    assert again == model
    assert hash(again) == hash(model)
    assert about == files.about(path) == ABOUT
    same(restored, jax.tree.map(lambda leaf: np.asarray(leaf).astype(dtype).astype(np.float32), variables))


@pytest.mark.parametrize("model", [LENET, WIDE], ids=lambda model: type(model).__name__)
def test_load_pretrained_gives_the_saved_classifier(model, tmp_path):
    variables = variables_of(model)
    path = files.save(tmp_path / "model.safetensors", model, variables, ABOUT, image_shape=SHAPES[model])
    apply_fn, about = load_pretrained(path)
    x = jnp.asarray(np.random.default_rng(1).uniform(size=(2, *SHAPES[model])), jnp.float32)
    run = jax.jit(lambda function, x: function(x))
    np.testing.assert_array_equal(run(apply_fn, x), run(models.evaluator(model, variables), x))
    inner = model.network if model is WIDE else model
    facts = {
        "kind": "classifier",
        "network": type(inner).__name__,
        "dtype": "float32",
        "channels": SHAPES[model][-1],
        "classes": inner.classes,
        "parameters": models.count_parameters(variables),
        "tensors": len(jax.tree.leaves(variables)),
        "source": "model.safetensors",
    }
    assert {name: about[name] for name in facts} == facts
    assert about | ABOUT == about
    assert (about["normaliser"] is None) == (model is not WIDE)
    with pytest.raises(ValueError, match="holds one network as it was saved"):
        load_pretrained(path, dtype=jnp.bfloat16)


def test_load_pretrained_gives_the_saved_denoiser_and_no_autoencoder(tmp_path):
    variables = variables_of(UNET)
    denoise, about = load_pretrained(files.save(tmp_path / "unet.safetensors", UNET, variables, ABOUT))
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 8, 8, 2)), jnp.float32)
    run = jax.jit(lambda function, x: function(x, 0.5))
    np.testing.assert_array_equal(run(denoise, x), run(scores.denoiser(UNET, variables), x))
    same(denoise.of(jnp.array([0, 2])).network.args, (variables,))
    assert (about["kind"], about["channels"], about["classes"]) == ("denoiser", 2, 3)
    path = files.save(tmp_path / "coder.safetensors", CODER, variables_of(CODER), ABOUT)
    with pytest.raises(ValueError, match=r"holds an autoencoder.*models\.load.*models\.encoder"):
        read_pretrained(path)


@pytest.mark.slow
def test_the_same_network_makes_the_same_bytes(tmp_path):
    """In processes whose hashes differ."""
    script = (
        "import sys, jax; from pags_jax.models import Autoencoder, files, architectures\n"
        "model = Autoencoder((6, 6, 1), latent=3, widths=(4,))\n"
        "variables = jax.tree.map(lambda s: 0.5 * jax.numpy.ones(s.shape), architectures.shapes_of(model, {}))\n"
        "files.save(sys.argv[1], model, variables, {'b': 1, 'a': {'d': 2, 'c': 3}})"
    )
    exec(script.replace("sys.argv[1]", repr(str(tmp_path / "here.safetensors"))), {})
    command = [sys.executable, "-c", script, str(tmp_path / "there.safetensors")]
    subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": "1"}, check=True, cwd=ROOT)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


@pytest.fixture
def saved(tmp_path):
    return files.save(tmp_path / "model.safetensors", UNET, variables_of(UNET), ABOUT)


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
    for read in (models.load, files.about, load_pretrained):
        with pytest.raises(ValueError, match="damaged") as refused:
            read(saved)
        assert str(saved) in str(refused.value)


def rewritten(path, attributes, *, kind="denoiser", without="", extra=()):
    """The file with other contents, and the SHA-256 that goes with them."""
    arrays, metadata, _ = files._read(path)
    metadata |= {"architecture": json.dumps(json.loads(metadata["architecture"]) | attributes), "kind": kind}
    arrays = {name: array for name, array in arrays.items() if name != without} | {n: np.zeros(2) for n in extra}
    metadata["sha256"] = files._digest(arrays, metadata)
    save_file(arrays, path, {"pags_jax": json.dumps(metadata)})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"attributes": {"widths": [4, 12]}}, r"weights of another architecture \(params/.*: expected \[.*got \["),
        ({"attributes": {"classes": 5}}, r"params/Embed_0/embedding: expected \[6, 8\], got \[4, 8\]"),
        ({"attributes": {"blocks": 2}}, "weights of another architecture"),
        ({"attributes": {"depth": 2}}, "cannot build: .*depth"),
        ({"attributes": {"widths": []}}, "cannot build"),
        ({"attributes": {"widths": [4, "8"]}}, "cannot build"),
        ({"attributes": {"channels": {}}}, "cannot build"),
        ({"attributes": {}, "without": "params/Dense_0/bias"}, r"Dense_0/bias: expected \[8\], got none"),
        ({"attributes": {}, "extra": ["params/more"]}, r"params/more: expected none, got \[2\]"),
        ({"attributes": {}, "kind": "alexnet"}, "of a class that this version does not know: 'alexnet'"),
        ({"attributes": {}, "kind": "autoencoder"}, "cannot build"),
    ],
)
def test_weights_of_another_architecture_are_refused(saved, change, said):
    rewritten(saved, **change)
    with pytest.raises(ValueError, match=said) as refused:
        models.load(saved)
    assert str(saved) in str(refused.value)


def test_other_files_are_refused(tmp_path, saved):
    for read in (models.load, files.about, load_pretrained):
        with pytest.raises(FileNotFoundError, match=r"no file .*nothing\.safetensors"):
            read(tmp_path / "nothing.safetensors")
    with pytest.raises(ValueError, match="another kind: expected classifier, got denoiser"):
        models.load(saved, kind="classifier")
    save_file({"x": np.zeros(3)}, saved)
    with pytest.raises(ValueError, match="no network that this package saved: it lacks the metadata"):
        models.load(saved)


def test_what_cannot_be_saved_is_refused_and_what_was_there_stays(saved, monkeypatch):
    variables, before = variables_of(UNET), saved.read_bytes()
    large = jax.tree.map(lambda leaf: leaf + 1e6, variables)
    for model, given, options, said in (
        (files, variables, {}, "hold networks of the classes UNet, Autoencoder, LeNet, .*, got a module"),
        (UNET, variables_of(CODER), {}, "these variables: weights of another architecture"),
        (LENET, variables_of(LENET), {}, "pass their `image_shape`"),
        (LENET, variables_of(LENET), {"image_shape": (28, 28, 1)}, "params/Dense_0/kernel: expected"),
        (UNET, large, {"dtype": "float16"}, "values that are not finite in float16"),
    ):
        with pytest.raises(ValueError, match=said):
            files.save(saved, model, given, {}, **options)
    with pytest.raises(ValueError, match=r"saved as \.safetensors, got 'model\.npz'"):
        files.save(saved.with_suffix(".npz"), UNET, variables, {})

    def broken(arrays, path, metadata):
        Path(path).write_bytes(b"half")
        raise OSError("the disk is full")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="full"):
        patch.setattr(files, "save_file", broken)
        files.save(saved, UNET, large, {})
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
