"""Small files that would take hours or gigabytes: each is refused, or read, within seconds and a few megabytes."""

import io
import re
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from pags_jax.models import pickles, states, torch_files
from pags_jax.models.states import find_state
from tests.pags import torch_writer as writer
from tests.pags.torch_writer import Call, Named, Outside, Raw


def text(content):
    return b"X" + struct.pack("<I", len(content)) + content.encode()


def often(argument, function, times=3_000):
    """A function called many times with one argument, all results kept."""
    return argument + b"\x85q\x000c" + function + b"\nq\x010]" + b"h\x01h\x00Ra" * times + b"."


def of_one_hash(count):
    """Pairs of whole numbers that Python gives the same hash: two rounds of xxHash, the second solved."""
    most, p1, p2, p5 = 2**64, 11400714785074694791, 14029467366897019727, 2870177450012600261

    def turned(x, by):
        return (x << by | x >> (64 - by)) % most

    goal, found, first = turned(12345 * pow(p1, -1, most) % most, 33), [], 0
    while len(found) < count:
        first += 1
        state = turned((p5 + first * p2) % most, 31) * p1
        second = (goal - state) * pow(p2, -1, most) % most
        second -= most * (second >= most // 2)
        if abs(second) < 2**60:
            found.append((first, second))
    assert len({hash(pair) for pair in found}) == 1
    return found


def number(value):
    return b"\x8a\x08" + value.to_bytes(8, "little", signed=True)


def modules(depth):
    """A module that holds another one twice, which holds another one twice, and so on."""

    def module(inside):
        state = {"_modules": {str(i): Raw(part) for i, part in enumerate(inside)}}
        made = Call(
            Named("torch_utils.persistence", "_reconstruct_persistent_obj"), ({"class_name": "A", "state": state},)
        )
        return writer.instructions(made)

    return module([]) + b"q\x010" + (module([b"h\x01"] * 2) + b"q\x010") * depth + b"h\x01."


LIST = b"](" + b"N" * 900 + b"e"
STORAGE = Call(Named("torch.storage", "_load_from_bytes"), (writer.legacy_storage(np.arange(6.0)),))
BYTES = b"B" + struct.pack("<I", 10**7) + bytes(10**7)


def within(content, times):
    """Files within a file, each of which takes nearly all that one pickle may take."""
    call = b"ctorch.storage\n_load_from_bytes\nB" + struct.pack("<I", len(content)) + content + b"\x85Ra"
    return b"]" + call * times + b"."


BOMBS = {
    "a name of many parts": (text("a." * 10**5) + text("b") + b"\x93)R.", "a name of 200001 characters"),
    "a long name in lines": (b"c" + b"a" * 400 + b"\nb\n.", "a name of 401 characters"),
    "a long name in a call": (b"(i" + b"a" * 400 + b"\nb\n.", "a name of 401 characters"),
    "a text encoded often": (often(text("a" * 10**5), b"_codecs\nencode"), "limit of .* for its encodings"),
    "a set copied often": (often(LIST.replace(b"N" * 900, b"K\1" * 900), b"builtins\nset"), "for its copies"),
    "a dict copied often": (
        often(b"}(" + b"".join(b"J" + struct.pack("<i", i) + b"N" for i in range(900)) + b"u",
              b"collections\nOrderedDict"), "limit of .* for its copies",
    ),
    "arguments looked through often": (
        b"(" + b"N" * 900 + b"tq\x000ca\nb\nq\x010" + b"h\x01h\x00R0" * 3_000 + b"N.", "for its copies",
    ),
    "a shape of bytes": (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + writer.instructions(STORAGE) + b"K\0" + BYTES + b")NNtR.",
        "sizes of up to 8 axes, got a memoryview",
    ),
    "a size of bytes": (b"ctorch\nSize\n" + BYTES + b"\x85R.", "sizes of up to 8 axes, got a memoryview"),
    "keys of one hash": (
        b"}" + b"".join(number(a) + number(b) + b"\x86Ns" for a, b in of_one_hash(900)) + b".", "a key that cannot",
    ),
    "long keys of bytes": (b"B\0\x10\0\0" + bytes(4096) + b"q\0000]" + b"}h\0Nsa" * 100 + b".", "a key that cannot"),
    "modules in modules": (modules(45), "modules of more than 2000 members"),
    "a module of a long name": (
        writer.pickled(Call(Named("a", "b"), (), {"_modules": {}, "_parameters": {"w" * 600: None}})),
        "longer names than 500",
    ),
    "files within a file": (within(b"]" + b"N" * 600 + b"0" * 600 + b".", 40), "for its steps"),
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_small_files_that_would_take_hours_or_gigabytes_are_refused(bomb, monkeypatch):
    content, said = BOMBS[bomb]
    small = pickles.Limits(steps=10_000, encodings=2**22, copies=20_000)
    monkeypatch.setattr(pickles, "LIMITS", small)
    monkeypatch.setattr(states, "_MEMBERS", 2_000)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=rf"model\.pt.*{said}"):
            find_state(torch_files.load(content, source="model.pt"), source="model.pt")
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()


def test_tensors_that_share_one_storage_are_refused_before_they_are_copied(monkeypatch):
    kind = Named("torch", "FloatStorage")
    tensor = Call(
        Named("torch._utils", "_rebuild_tensor_v2"),
        (Outside(("storage", kind, "0", "cpu", 10**5)), 0, (10**5,), (1,), False, writer.ORDERED),
    )

    def content(count):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("a/data.pkl", writer.pickled({f"w{i}": tensor for i in range(count)}))
            archive.writestr("a/data/0", bytes(4 * 10**5))
        return torch_files.load(file.getvalue(), source="model.pt")

    with pytest.raises(ValueError, match=r"model\.pt is refused: its tensors take 2000000 bytes and share 400000"):
        find_state(content(5), source="model.pt")
    assert len(find_state(content(4), source="model.pt").arrays) == 4
    monkeypatch.setattr(states, "_TENSORS", 3)
    with pytest.raises(ValueError, match="a model of 4 tensors, expected at most 3"):
        find_state(content(4), source="model.pt")


def test_entries_that_are_named_often_are_looked_at_once():
    """Quadratic, it would be a look at every tensor for each name."""
    inside = {**{f"w{i}": np.ones(1, "f4") for i in range(20)}, "epoch": 3}
    entries = {f"e{i}": Raw(b"h\x05") for i in range(500)}
    content = writer.plain(inside)[2:-1] + b"q\x050" + writer.pickled(entries)[2:]
    value = torch_files.load(content, source="model.pt")
    looked = []

    class Counted(dict):
        def items(self):
            looked.append(1)
            return super().items()

    counted = Counted(value["e0"])
    with pytest.raises(ValueError, match="holds no model that is known"):
        find_state(dict.fromkeys(value, counted), source="model.pt")
    assert len(looked) < 5


@pytest.mark.parametrize(
    ("member", "said"),
    [
        ({"_modules": {"a\x1b[2J": 3}}, "holds 3 where a module should be"),
        ({"_modules": {"a": Raw(b")" + b"\x85" * 10**4)}}, "holds a tuple where a module should be"),
        ({"_parameters": {"a\x1b[2J": 3}}, re.escape(r"a\x1b[2J is 3, no tensor")),
        ({"_modules": {"a\x1b[2J": Call(Named("a", "b"), (), {"_modules": {}, "_buffers": 3})}}, r"_buffers of a\\x1b"),
    ],
)
def test_members_of_modules_that_are_none_are_named_as_a_terminal_can_show(member, said):
    value = torch_files.load(writer.pickled(Call(Named("a", "b"), (), {"_modules": {}, **member})), source="model.pt")
    with pytest.raises(ValueError, match=rf"model\.pt.*{said}") as refused:
        find_state(value, source="model.pt")
    assert str(refused.value).isprintable()


def test_two_tensors_of_one_name_are_refused():
    inner = Call(Named("a", "b"), (), {"_modules": {}, "_parameters": {"w": np.ones(2, "f4")}})
    value = Call(Named("a", "b"), (), {"_parameters": {"x.w": np.ones(2, "f4")}, "_modules": {"x": inner}})
    with pytest.raises(ValueError, match=r"model\.pt has two tensors of the name x\.w"):
        find_state(torch_files.load(writer.plain(value), source="model.pt"), source="model.pt")


SETTINGS = [
    ({"decay": 0.999, "num_updates": 5}, "model"),
    ({"decay": 0.999, "shadow": "weights"}, "ema"),
    (None, "model"),
]


@pytest.mark.parametrize(("ema", "entry"), SETTINGS)
def test_settings_of_averages_are_no_averaged_weights(ema, entry):
    weights = {"w": np.ones(2, "f4")}
    ema = {name: {"w": np.zeros(2, "f4")} if item == "weights" else item for name, item in ema.items()} if ema else ema
    state = find_state(torch_files.load(writer.zipped({"ema": ema, "model": weights}), source="model.pt"), source="x")
    assert state.entry[0] == entry
    assert state.arrays["w"][0] == (entry == "model")


@pytest.mark.parametrize("name", ["params_ema", "ema_model", "swa_state_dict", "net_ema"])
def test_averaged_weights_are_taken_by_whatever_name_libraries_give_them(name):
    raw, averaged = {"w": np.ones(2, "f4")}, {"w": np.zeros(2, "f4")}
    value = {"model": raw, "params": raw, "state_dict": raw, name: averaged}
    state = find_state(torch_files.load(writer.zipped(value), source="model.pt"), source="model.pt")
    assert (state.entry, state.arrays["w"][0]) == ((name,), 0)


def test_arrays_of_numpy_among_the_weights_are_named():
    array = Call(Named("numpy.core.multiarray", "_reconstruct"), (Named("numpy", "ndarray"), (0,), b"b"))
    value = torch_files.load(writer.pickled({"state_dict": {"w": array}}), source="model.pt")
    said = r"'state_dict' is a dict of w \(what numpy\.core\.multiarray\._reconstruct makes\); expected tensors by name"
    with pytest.raises(ValueError, match=said):
        find_state(value, source="model.pt")
