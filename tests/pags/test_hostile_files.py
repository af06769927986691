"""Files that were made to mislead: whole networks of wrong tensors, and saved ones whose descriptions lie."""

import functools
import hashlib
import json
import os
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pags_jax import models
from pags_jax.models import PreActivationResNet, ResNet, SongUNet, files, load_pretrained
from tests.pags import torch_writer as writer
from tests.pags.test_published import DEEP, edm, tensors

WIDE = PreActivationResNet(classes=4, blocks=(1, 1), widths=(4, 8), stem=4)
PLAIN = ResNet(classes=3, blocks=(1, 1), width=0.0625, bottleneck=True)
SONG = SongUNet(classes=2, resolution=4, width=8, multipliers=(1, 2), blocks=1, attention=(2,))
NETWORKS = {"wide": (WIDE, "deepmind-wide"), "plain": (PLAIN, "cifar"), "song": (SONG, "edm")}
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "25"))
FUZZ = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


@functools.cache
def state_of(name):
    """Tensors of one of the networks."""
    return tensors(*NETWORKS[name])


def said_of(path):
    """What the refusal of a file says, or what is known of it."""
    try:
        return load_pretrained(path)[1]["source"]
    except ValueError as error:
        return str(error)


# ------------------------------------------------------------------------------------- tensors of no known network
def changed(array, how, number):
    """Another array in the place of one: of another shape, type or order, or none."""
    shape = list(array.shape)
    if how == "shape" and shape:
        shape[number % len(shape)] = number // 5
    elif how == "axes":
        shape = shape[1:] if number % 2 else [1, *shape]
    elif how == "type":
        return array.astype(["f8", "i8", "?", "u1"][number % 4])
    elif how == "value" and array.dtype.kind == "f":
        return np.full_like(array, [np.nan, np.inf, -1, 0, 1e30][number % 5])
    return np.resize(array, shape).astype(array.dtype)


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["shape", "axes", "type", "value", "none", "name", "again"]), st.integers(0, 200),
        st.integers(0, 60), st.sampled_from(["0", "1", "2", "9", "16x16", "block7", "10" * 20, "weight", "qkv", "aux"]),
    ),
    min_size=1, max_size=3,
)  # fmt: skip
RECORDED = st.dictionaries(
    st.sampled_from(["channel_mult", "num_blocks", "attn_resolutions", "model_channels", "label_dim", "x"]),
    st.sampled_from([0, -1, 2, 2.5, None, "two", [1], [1, 2], [[2]], (2, "x"), {"a": 1}, 10**300, DEEP, [DEEP]]),
    max_size=2,
)


@pytest.mark.slow
@FUZZ
@given(
    which=st.sampled_from(sorted(NETWORKS)), changes=CHANGES, recorded=RECORDED,
    form=st.sampled_from([writer.plain, writer.zipped, writer.legacy]),
)  # fmt: skip
@example(which="song", changes=[("none", 0, 0, "0")], recorded={"attn_resolutions": [DEEP]}, form=writer.plain)
def test_any_tensors_are_a_network_or_refused_with_the_files_name(tmp_path_factory, which, changes, recorded, form):
    state = dict(state_of(which))
    for how, at, number, word in changes:
        name = sorted(state)[at % len(state)]
        if how in ("none", "name"):
            array = state.pop(name)
            if how == "name":
                parts = name.split(".")
                parts[number % len(parts)] = word
                state[".".join(parts)] = array
        elif how == "again":
            state[f"{name}.{word}"] = state[name]
        else:
            state[name] = changed(state[name], how, number)
    path = tmp_path_factory.getbasetemp() / "fuzzed.pt"
    path.write_bytes(form({"ema": edm(SONG, state, **recorded)} if which == "song" else {"state_dict": state}))
    assert "fuzzed.pt" in said_of(path)


# ------------------------------------------------------------------------------------------------- saved networks
@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    import jax
    import jax.numpy as jnp

    variables = models.init(PLAIN, jnp.zeros((1, 8, 8, 3)), key=jax.random.key(0))
    return models.save(tmp_path_factory.mktemp("saved") / "network.safetensors", PLAIN, variables, {"epochs": 1})


def parts(content):
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def joined(header, data):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def lying(content, **changes):
    """A saved network with other metadata, and the SHA-256 that goes with them."""
    header, data = parts(content)
    metadata = json.loads(header["__metadata__"]["pags_jax"]) | changes
    metadata = {name: value for name, value in metadata.items() if value is not None and name != "sha256"}
    arrays = {
        name: np.frombuffer(data[slice(*entry["data_offsets"])], "f4").reshape(entry["shape"])
        for name, entry in header.items()
        if name != "__metadata__"
    }
    metadata["sha256"] = files._digest(arrays, metadata)
    header["__metadata__"]["pags_jax"] = json.dumps(metadata, sort_keys=True)
    return joined(header, data)


def architecture(content, **changes):
    header, _ = parts(content)
    metadata = json.loads(header["__metadata__"]["pags_jax"])
    return lying(content, architecture=json.dumps(json.loads(metadata["architecture"]) | changes))


NESTED = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: lying(c, epochs="1"), None),
        (lambda c: lying(c, kind=["ResNet"]), "its metadata are no texts"),
        (lambda c: lying(c, kind="Popen"), "a class that this version does not know: 'Popen'"),
        (lambda c: lying(c, architecture=NESTED), "its architecture is no JSON"),
        (lambda c: lying(c, about="{"), "its about is no JSON"),
        (lambda c: lying(c, image_shape="[1"), "its image_shape is no JSON"),
        (lambda c: architecture(c, blocks=[10**9, 1]), r"cannot build: .*1000000001 stages or blocks, and \d+ arr"),
        (lambda c: architecture(c, stages=[1] * 10**5), "100000 stages or blocks"),
        (lambda c: architecture(c, blocks="many"), "holds a ResNet that this version cannot build"),
        (lambda c: architecture(c, width=1e300), "weights of another architecture"),
        (lambda c: architecture(c, bottleneck=False), "weights of another architecture"),
        (lambda c: architecture(c, depth=50), "holds a ResNet that this version cannot build"),
        (lambda c: c[:-1], "is damaged or no safetensors file"),
        (lambda c: c[:8], "is damaged or no safetensors file"),
        (lambda c: struct.pack("<Q", 2**62) + c[8:], "is damaged or no safetensors file"),
        (lambda c: c[:-4] + b"\x7f\x7f\x7f\x7f", "its contents have not the SHA-256"),
        (lambda c: joined({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"abcd"), "lacks the"),
    ],
)  # fmt: skip
def test_saved_networks_that_lie_are_refused(change, said, saved, tmp_path):
    path = tmp_path / "network.safetensors"
    path.write_bytes(change(saved.read_bytes()))
    if said is None:
        assert load_pretrained(path)[1]["epochs"] == 1
        return
    with pytest.raises(ValueError, match=rf"network\.safetensors.*{said}"):
        load_pretrained(path)


@FUZZ
@given(data=st.data())
def test_any_bytes_of_a_saved_network_are_read_or_refused(saved, data):
    content = bytearray(saved.read_bytes())
    end = 8 + int.from_bytes(content[:8], "little")
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, end) | st.integers(0, len(content)))
        content[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    path = saved.with_stem("fuzzed")
    path.write_bytes(content)
    assert "fuzzed.safetensors" in said_of(path)


def test_the_digest_of_a_saved_network_is_of_its_arrays_and_metadata(saved):
    """As it was when the first of them were written."""
    header, data = parts(saved.read_bytes())
    metadata = json.loads(header["__metadata__"]["pags_jax"])
    stated = metadata.pop("sha256")
    digest = hashlib.sha256(json.dumps(dict(sorted(metadata.items()))).encode())
    for name in sorted(header.keys() - {"__metadata__"}):
        entry = header[name]
        digest.update(f"\0{name} float32 {tuple(entry['shape'])}\0".encode() + data[slice(*entry["data_offsets"])])
    assert digest.hexdigest() == stated
