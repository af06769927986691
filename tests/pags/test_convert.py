"""Names of published weights, and their conversion to safetensors with their licence."""

import functools
import hashlib
import http.server
import threading

import jax
import numpy as np
import pytest

from pags_jax.models import PreActivationResNet, catalogue, load_pretrained, read_pretrained
from scripts.pags import convert as pags_convert
from tests.pags import torch_writer as writer
from tests.pags.test_published import DENOISERS, data_parallel, edm, tensors

WIDE = PreActivationResNet(classes=4, blocks=(1, 1, 1), widths=(8, 16, 24), stem=8)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A small file in DeepMind's format, under the name of a large one."""
    folder = tmp_path_factory.mktemp("published")
    file = catalogue.PUBLISHED["rebuffi-wrn-28-10-l2"].file
    (folder / file).write_bytes(writer.zipped(data_parallel(tensors(WIDE, "deepmind-wide"))))
    return folder / file


def convert(source, to, **options):
    pags_convert.main(pags_convert.Config(source=str(source), to=to, **options))


def same(path, other):
    """What two files say, which hold the same module and the same variables."""
    before, after = read_pretrained(path), read_pretrained(other)
    assert before.model == after.model
    assert jax.tree.structure(before.variables) == jax.tree.structure(after.variables)
    for one, two in zip(jax.tree.leaves(before.variables), jax.tree.leaves(after.variables), strict=True):
        np.testing.assert_array_equal(one, two)
    return before.about, after.about


def test_a_converted_classifier_is_the_same_function_and_carries_its_licence(published, tmp_path, capsys):
    to = tmp_path / "wide.safetensors"
    convert(published, to, licence="MIT, (c) 2024 A. Author")
    assert "licence: MIT, (c) 2024 A. Author" in capsys.readouterr().out
    about, again = same(published, to)
    assert again["licence"] == "MIT, (c) 2024 A. Author"
    assert again["sha256"] == about["sha256"]
    with pytest.raises(ValueError, match="is there already"):
        convert(published, to, licence="MIT")
    with pytest.raises(ValueError, match="holds one network as it was saved"):
        load_pretrained(to, normaliser=None)


def test_conversion_needs_a_licence_and_a_name_that_ends_as_it_should(published, tmp_path):
    with pytest.raises(ValueError, match="is in no catalogue: pass the licence of its weights as --licence"):
        convert(published, tmp_path / "wide.safetensors")
    with pytest.raises(ValueError, match=r"--to must end in \.safetensors"):
        convert(published, tmp_path / "wide.npz", licence="MIT")
    assert not list(tmp_path.iterdir())


def test_a_converted_denoiser_is_the_same_function(tmp_path):
    model = DENOISERS["ddpmpp"]
    (tmp_path / "network.pkl").write_bytes(writer.plain({"ema": edm(model, tensors(model, "edm"))}))
    convert(tmp_path / "network.pkl", tmp_path / "network.safetensors", licence="CC0")
    about, again = same(tmp_path / "network.pkl", tmp_path / "network.safetensors")
    assert again["recorded"] == about["recorded"]


def test_names_say_where_files_are_got_and_what_they_must_hold(published, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"get cifar10_l2_wrn28-10_cutmix_ddpm_v2\.pt from the table in github"):
        load_pretrained("rebuffi-wrn-28-10-l2", folder=tmp_path)
    with pytest.raises(ValueError, match=r"is not rebuffi-wrn-28-10-l2: it has .*'classes': 4.*expected .*36479194"):
        load_pretrained("rebuffi-wrn-28-10-l2", folder=published.parent)
    with pytest.raises(ValueError, match="no published weights of this name; known: edm-cifar10, "):
        catalogue.find("rebuffi")


@pytest.fixture
def server(tmp_path):
    """Files of a folder by HTTP on this machine."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()


def test_a_file_is_downloaded_where_its_sha256_is_given_and_kept_if_it_has_it(published, server, tmp_path, monkeypatch):
    name, content = "rebuffi-wrn-28-10-l2", published.read_bytes()
    entry = catalogue.PUBLISHED[name]
    monkeypatch.setitem(catalogue.ADDRESSES, entry.where, server)
    (tmp_path / entry.file).write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    with pytest.raises(FileNotFoundError, match="with its SHA-256 as sha256= it is downloaded"):
        catalogue.find(name, tmp_path / "kept")
    with pytest.raises(ValueError, match="cannot download"):
        catalogue.find(name, tmp_path / "kept", sha256="0" * 64)
    assert not (tmp_path / "kept" / entry.file).exists()
    path = catalogue.find(name, tmp_path / "kept", sha256=sha256)
    assert (path, path.read_bytes()) == (tmp_path / "kept" / entry.file, content)
    # A file that is there is not downloaded again, and must have the SHA-256 as well.
    assert read_pretrained(path, sha256=sha256.upper()).about["sha256"] == sha256
    with pytest.raises(ValueError, match=f"contents of SHA-256 {sha256}, expected 00"):
        read_pretrained(path, sha256="0" * 64)


def test_the_catalogue_has_the_models_that_people_ask_for():
    names = set(catalogue.PUBLISHED)
    wide = {
        f"{who}-wrn-{size}-{n}" for who in ("rebuffi", "wang") for size in ("28-10", "70-16") for n in ("l2", "linf")
    }
    assert wide | {"engstrom-resnet50-l2", "edm-cifar10", "edm-imagenet64"} <= names
    assert {f"madry-cifar10-l2-{eps}" for eps in ("0.25", "0.5", "1")} <= names
    assert {f"imagenet-resnet{d}-l2-{eps}" for d in (18, 50) for eps in ("0", "0.01", "0.5", "3", "5")} <= names
    assert catalogue.PUBLISHED["imagenet-resnet50-linf-4"].file == "resnet50_linf_eps4.0.ckpt"
    for published in catalogue.PUBLISHED.values():
        assert published.licence
        assert published.where
        assert {"kind", "parameters", "classes"} == set(published.expected)
