"""Reading of pickles against Python's own, and of hostile ones, of which nothing may run."""

import gzip
import importlib
import io
import os
import pickle
import sys
import tracemalloc
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pags_jax.models import load_pretrained, loading, pickles, torch_files
from pags_jax.models.records import Global, Record
from pags_jax.models.states import find_state
from tests.pags import torch_writer as writer
from tests.pags.torch_writer import Call, Named

RNG = np.random.default_rng(0)
ARRAY = RNG.normal(size=(2, 3)).astype("f4")
COUNT = np.array(3)


def load(content):
    value, end = pickles.load(content, source="the file")
    assert end == len(content)
    return value


# ------------------------------------------------------------------------------------------------- plain values
SCALARS = st.none() | st.booleans() | st.integers(-(2**200), 2**200) | st.floats(allow_nan=False) | st.text()
KEYS = st.text() | st.integers(-(2**40), 2**40) | st.none() | st.tuples(st.text(), st.integers(0, 9))
VALUES = st.recursive(
    SCALARS | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner) | st.tuples(inner, inner) | st.sets(st.text()),
    max_leaves=20,
)


def without_views(value):
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, dict):
        return {key: without_views(item) for key, item in value.items()}
    return type(value)(map(without_views, value)) if isinstance(value, list | tuple | set) else value


@settings(max_examples=150, deadline=None)
@given(value=VALUES, protocol=st.integers(3, 5))
def test_plain_values_are_those_that_python_wrote(value, protocol):
    assert without_views(load(pickle.dumps(value, protocol))) == value


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_is_read(protocol):
    shared = ["a", 1, -3, 2**40, 1.5, None, True, "é\n", "x" * 300]
    value = {"list": shared, "again": shared, "tuple": (1, (2,), ()), "dict": {3: {}}, "ordered": OrderedDict(a=1)}
    found = load(pickle.dumps(value, protocol))
    assert found == value
    assert found["list"] is found["again"]


def test_bytes_of_old_protocols_and_numbers_of_numpy_are_read():
    assert bytes(load(pickle.dumps(b"\x00\xff", 2))) == b"\x00\xff"
    for number in (np.float64(0.5) / 3, np.float32(0.1), np.int64(-7), np.bool_(True)):
        for protocol in (2, 4):
            assert load(pickle.dumps(number, protocol)) == number.item()


def test_what_is_not_plain_becomes_a_record():
    found = load(writer.pickled(Call(Named("a.b", "C"), (1,), {"x": Call(Named("d", "e"), ())})))
    assert isinstance(found, Record)
    assert (found.what, found.args) == (Global("a.b", "C"), (1,))
    assert found.state["x"].what == Global("d", "e")
    for content in (b"(ia\nb\n.", b"(ca\nb\no.", b"ca\nb\n)}\x92.", b"ca\nb\n)\x81(K\x01e.", b"ca\nb\n)R(K\x01K\x02u."):
        assert load(content).what == Global("a", "b")


# ---------------------------------------------------------------------------------------------- what is refused
CANARY = "touched"


class Touch:
    def __init__(self, where):
        self.where = where

    def __reduce__(self):
        return os.system, (f"touch {self.where}",)


@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: {"state_dict": v}, lambda v: [1, [v]]])
@pytest.mark.parametrize("protocol", range(6))
def test_a_call_of_the_shell_is_refused_by_name(tmp_path, protocol, wrap):
    content = pickle.dumps(wrap(Touch(tmp_path / CANARY)), protocol)
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.pt is refused: .* call (posix|nt|os)\.system.*nothing was run"):
        torch_files.load_file(tmp_path / "model.pt")
    assert not (tmp_path / CANARY).exists()


@pytest.mark.parametrize(
    "name",
    ["os system", "posix system", "subprocess Popen", "builtins eval", "__builtin__ eval", "builtins exec",
     "builtins __import__", "runpy _run_code", "pickle loads", "torch.hub os.system", "importlib import_module"],
)  # fmt: skip
def test_harmful_functions_are_refused_by_every_instruction_that_calls(name):
    module, _, name = name.partition(" ")
    named = f"c{module}\n{name}\n".encode()
    text = b"X\x01\x00\x00\x00x"
    for content in (
        named + text + b"\x85R.", named + text + b"\x85\x81.", b"(" + named + text + b"o.", named + b")}\x92.",
        b"(" + text + f"i{module}\n{name}\n.".encode(), named + b")R0N.", named + b"q\x000h\x00)R.",
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"it asks to call {'' if module[0] == '_' else module}"):
            load(content)
    for caller in ("functools partial", "builtins map", "builtins getattr", "copyreg __newobj__", "a.b C"):
        calling = "c{}\n{}\n".format(*caller.split()).encode()
        with pytest.raises(ValueError, match=f"it hands .* to {caller.replace(' ', '.')}, which no weights need"):
            load(calling + named + text + b"\x86R.")


@pytest.mark.parametrize("name", ["joblib.load", "numpy.load", "pandas.read_pickle", "pickle.load", "pickle.loads"])
def test_functions_that_unpickle_are_refused_under_the_names_that_a_pickle_has_for_them(name):
    """A pickle names a function by the module that it is defined in, which may be another than it is called by."""
    module, _, function = name.rpartition(".")
    loader = getattr(importlib.import_module(module), function)
    with pytest.raises(ValueError, match=rf"it asks to call .*\.{function}, which no weights need"):
        load(pickle.dumps(loader, 4)[:-1] + b"X\x01\0\0\0x\x85R.")


def test_names_of_a_file_cannot_reach_a_terminal():
    shown = "X\x0a\0\0\0a\x1b[2J\nb\xc3\xa9\x07".encode("latin-1")
    for content in (shown + b"\x8c\x01f\x93K\x01K\x02s.", shown + b"Q.", shown + b"\x8c\x01f\x93K\x01R."):
        with pytest.raises(ValueError) as refused:
            load(content)
        assert str(refused.value).isprintable()


LIMITS = pickles.Limits(steps=5_000, stack=300, marks=50, memo=200, text=5_000)
LAUGHS = b")" + b"2\x86" * 60


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"N" * 400 + b".", "limit of 300 for its stack"),
        (b"(" + b"N" * 290 + b"(" + b"N" * 20, "limit of 300 for its stack"),
        (b"(" * 60, "limit of 50 for its marks"),
        (b"N" + b"\x94" * 300, "limit of 200 for its memo"),
        (b"N" + b"".join(b"r" + k.to_bytes(4, "little") for k in range(300)), "limit of 200 for its memo"),
        (b"N0" * 4_000, "limit of 5000 for its steps"),
        ((b"U\xff" + b"x" * 255 + b"0") * 30, "limit of 5000 for its text"),
        (LAUGHS + b"}" + LAUGHS + b"Ns.", "a key that cannot be used, a tuple"),
        (b"}" + b"\x8a\x09" + (2**61 - 1).to_bytes(9, "little") + b"Ns.", "a key that cannot be used"),
        (b"}]Ns.", "a key that cannot be used, a list"),
        (b"}(Nu.", "a key without a value"),
        (b".", "leaves 0 values"),
        (b"NN.", "leaves 2 values"),
        (b"(N.", "leaves 1 values and 1 marks"),
        (b"h\x05.", "the memo has no number 5"),
        (b"R.", "the stack is empty"),
        (b"t.", "there is no mark"),
        (b"NNR.", "arguments that are no tuple"),
        (b"N(Nb.", "the stack is empty"),
        (b"K\x01Nb.", "a state for 1"),
        (b"K\x01Na.", "items for 1"),
        (b"NK\x01K\x01s.", "entries for None"),
        (b"Pwhere\n.", "points outside of itself, to where"),
        (b"\x82\x01.", "EXT1 needs what only the program"),
        (b"\x97.", "NEXT_BUFFER needs"),
        (b"NN\x93.", "a name that is no text"),
        (b"ccollections\nOrderedDict\nK\x01\x85R.", "collections.OrderedDict has arguments that it cannot have"),
        (b"c_codecs\nencode\nK\x01\x85R.", "_codecs.encode has arguments"),
        (b"cnumpy.core.multiarray\nscalar\n)R.", "scalar has arguments"),
    ],
)
def test_bombs_and_malformed_pickles_are_refused(content, said):
    with pytest.raises(ValueError, match=f"the file is refused: at byte .*{said}.*; nothing was run"):
        pickles.load(content, source="the file", limits=LIMITS)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is cut off"),
        (b"\xff.", "byte 0 is 0xff, no instruction"),
        (b"Inine\n.", "instruction at byte 0 is malformed"),
        (b"I" + b"9" * 600 + b"\n.", "a number of 600 digits"),
        (b"S'a\\x00'\n.", "without backslashes"),
        (b"X\x01\x00\x00\x00\xff.", "malformed"),
        (b"T\xff\xff\xff\xff.", "-1 bytes"),
        (b"\x8b\xff\xff\x00\x00.", "65535 bytes, expected 0 to 256"),
        (b"X\xff\xff\xff\xff.", "4294967295 bytes, expected"),
        (b"B\xff\xff\xff\xff.", "is cut off"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff.", "is cut off"),
    ],
)
def test_what_is_no_pickle_is_refused(content, said):
    with pytest.raises(ValueError, match=f"the file .*{said}"):
        load(content)


def test_ends_that_make_long_values_and_cycles_are_harmless():
    found = load(LAUGHS + b".")
    assert repr(Record(found)) == "Record(a tuple)"
    cyclic = load(b"]q\x00h\x00a.")
    assert cyclic[0] is cyclic


# ------------------------------------------------------------------------------------------------ torch's files
def tensors():
    shared = RNG.normal(size=4)
    return {
        "a": ARRAY,
        "turned": np.asfortranarray(RNG.normal(size=(3, 2, 2)).astype("f4")),
        "half": ARRAY.astype("f2"),
        "count": COUNT,
        "shared": shared,
        "again": shared,
        "empty": np.zeros((0, 3), "f4"),
        "nested": [{"flags": np.array([True, False])}, Call(Named("dill._dill", "_create_function"), (1,))],
    }


FORMS = {"legacy": writer.legacy, "zip": writer.zipped, "plain": writer.plain}


@pytest.mark.parametrize("form", FORMS)
def test_tensors_come_back_as_they_were_written(form, tmp_path):
    expected = tensors()
    (tmp_path / "model").write_bytes(FORMS[form](expected))
    found = torch_files.load_file(tmp_path / "model")
    for name in ("a", "turned", "half", "count", "shared", "again", "empty"):
        array = found[name].array()
        np.testing.assert_array_equal(array, expected[name], strict=True)
        assert not array.flags.writeable
    np.testing.assert_array_equal(found["nested"][0]["flags"].array(), [True, False])
    assert isinstance(found["nested"][1], Record)
    if form != "plain":
        shared, again = (found[name].storage.data for name in ("shared", "again"))
        assert np.shares_memory(np.frombuffer(shared), np.frombuffer(again))


@pytest.mark.parametrize("form", FORMS)
def test_a_file_cut_off_anywhere_is_refused(form):
    content = FORMS[form](ARRAY)
    assert torch_files.load(content, source="model.pt").shape == (2, 3)
    for end in range(len(content)):
        with pytest.raises(ValueError, match=r"model\.pt"):
            torch_files.load(content[:end], source="model.pt")
    with pytest.raises(ValueError, match=r"after its end|no whole zip|damaged"):
        torch_files.load(content + b"\0" * 70_000, source="model.pt")


def test_a_tensor_with_attributes_of_its_own_is_read_and_another_class_of_tensor_is_not():
    """Python attributes, and PyTorch's buffers, make it one of ``_rebuild_from_type_v2``."""

    def typed(function):
        return Call(
            Named("torch._tensor", "_rebuild_from_type_v2"),
            (Named("torch._utils", function), Named("torch", "Tensor"), rebuilt.args, {"is_buffer": True}),
        )

    rebuilt = writer.within(ARRAY)
    found = torch_files.load(writer.pickled({"w": typed("_rebuild_tensor_v2")}), source="model.pt")
    np.testing.assert_array_equal(found["w"].array(), ARRAY, strict=True)
    with pytest.raises(ValueError, match=r"tensors made by torch\._utils\._rebuild_sparse_tensor are not read"):
        torch_files.load(writer.pickled({"w": typed("_rebuild_sparse_tensor")}), source="model.pt")


def tensor_of(storage, offset, shape, strides):
    return Call(Named("torch._utils", "_rebuild_tensor_v2"), (storage, offset, shape, strides, False, writer.ORDERED))


STORAGE = Call(Named("torch.storage", "_load_from_bytes"), (writer.legacy_storage(np.arange(6.0)),))


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(0, (2, 6), (0, 1)), (0, (7,), (1,)), (1, (6,), (1,)), (0, (2, 3), (4, 1)), (0, (6,), (0,) * 2), (-1, (2,), (1,)),
     (0, (2,), (-1,)),
     (0, (2**40, 2**40), (0, 0)), (0, (9,), (0,)), (0, (2.0,), (1,)), (True, (2,), (1,)), (7, (0,), (1,)),
     (0, (1,) * 9, (1,) * 9), (0, 3, 1), (0, (-1,), (1,)), (0, (2**70,), (1,))],
)  # fmt: skip
def test_a_tensor_outside_of_its_storage_is_refused(offset, shape, strides):
    with pytest.raises(ValueError, match=r"model\.pt is refused: .*_rebuild_tensor_v2 has arguments that it cannot"):
        torch_files.load(writer.pickled({"w": tensor_of(STORAGE, offset, shape, strides)}), source="model.pt")
    good = writer.pickled(tensor_of(STORAGE, 1, (2, 2), (3, 1)))
    np.testing.assert_array_equal(torch_files.load(good, source="x").array(), [[1, 2], [4, 5]])


def test_a_tensor_that_torch_would_change_or_repeat_is_refused_with_what_to_save():
    """PyTorch negates and conjugates lazily: what the storage holds is not yet the tensor."""
    for metadata, said in (({"neg": True}, "negated"), ({"conj": True, "neg": False}, "conjugated"), (3, "negated")):
        call = writer.rebuilt(ARRAY, writer.within(ARRAY).args[0], metadata)
        with pytest.raises(ValueError, match=rf"model\.pt is refused: .*{said}.*: save its resolve_neg"):
            torch_files.load(writer.pickled({"w": call}), source="model.pt")
    call = writer.rebuilt(ARRAY, writer.within(ARRAY).args[0], {"neg": False})
    np.testing.assert_array_equal(torch_files.load(writer.pickled(call), source="x").array(), ARRAY)
    expanded = tensor_of(STORAGE, 0, (4, 6), (0, 1))
    with pytest.raises(ValueError, match=r"the shape \(4, 6\) repeats the 6 elements of its storage: save its contig"):
        torch_files.load(writer.pickled(expanded), source="model.pt")


OUTSIDE = tensor_of(writer.Outside(("storage", Named("torch", "FloatStorage"), "0", "cpu", 7)), 0, (7,), (1,))


def changed(content, old, new):
    assert content.count(old) >= 1
    assert len(old) == len(new)
    return content.replace(old, new)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda: changed(writer.legacy(ARRAY), b"\6\0\0\0\0\0\0\0", b"\7\0\0\0\0\0\0\0"), "has 7 numbers, and 6 were"),
        (lambda: changed(writer.legacy(ARRAY), b"\6\0\0\0\0\0\0\0", b"\xff" * 8), "has -1 numbers, and 6 were"),
        (lambda: writer.legacy(ARRAY, little_endian=False), "does not say that its numbers are little-endian"),
        (lambda: changed(writer.legacy(ARRAY), b"\xe9\x03.", b"\xea\x03."), "version 1002, expected 1001"),
        (lambda: changed(writer.legacy(ARRAY), b"FloatStorage", b"FlautStorage"), "type torch.FlautStorage are not"),
        (lambda: changed(writer.legacy(ARRAY), b"](X\1\0\0\0000e.", b"](X\1\0\0\0001e."), "not the 1 it refers to"),
        (lambda: changed(writer.zipped(ARRAY), b"K\6t", b"K\7t"), "damaged: archive/data.pkl does not have its check"),
        (lambda: writer.zipped(OUTSIDE, extra=[("archive/data/0", b"x" * 24)]), "of 7 numbers of float32 has 24 bytes"),
        (lambda: writer.zipped(OUTSIDE), "there is no archive/data/0 in the archive"),
        (lambda: writer.zipped(ARRAY, extra=[("../evil", "x")]), r"the name '\.\./evil' leads out of the archive"),
        (lambda: writer.zipped(ARRAY, extra=[("/etc/x", "x")]), "the name '/etc/x' leads out"),
        (lambda: writer.zipped(ARRAY, extra=[("a\\b", "x")]), "leads out"),
        (lambda: writer.zipped(ARRAY, extra=[("b/data.pkl", "x")]), "of 2 files named data.pkl, expected one"),
        (lambda: writer.zipped(ARRAY, extra=[("archive/code/a.py", "x")]), "TorchScript"),
        (lambda: writer.pickled(writer.Outside(("storage", 1, 2, 3, 4))), "points outside of itself"),
        (lambda: b"x" * 257 + b"ustar" + b"x" * 300, "tar archive"),
        (lambda: b"PK\x03\x04" + b"x" * 100, "no whole zip archive"),
        (lambda: b"Not Found", "there is no mark; nothing was run; it begins with b'Not Found', is it the file itself"),
        (lambda: b"Entry not found", "no instruction; it begins with b'Entry not found', is it the file itself"),
        (lambda: b"\n<!DOCTYPE html>", "is a web page, from a download that failed; get the file itself"),
        (lambda: b"version https://git-lfs.github.com/spec/v1", "is a pointer of Git LFS; get the file itself"),
        (lambda: b'\x10\0\0\0\0\0\0\0{"a"', r"is a safetensors file; .* ends in \.safetensors"),
        (lambda: b"\x93NUMPY\1\0", "is an array of NumPy, no checkpoint of PyTorch; save the state_dict"),
        (lambda: gzip.compress(b"x"), "is compressed; decompress it first"),
        (lambda: archive(("a.npy", b"x")), r"not PyTorch's, but of 'a\.npy'; unpack it, if"),
        (lambda: b"PK\5\6" + b"\0" * 18, "is an empty zip archive; get it again"),
        (
            lambda: archive(("a\x1b[2J/data.pkl", b"N.")),
            r"the name 'a\\x1b\[2J/data\.pkl' is of characters that cannot",
        ),
    ],
)
def test_containers_that_lie_are_refused(content, said):
    with pytest.raises(ValueError, match=f"model.pt.*{said}"):
        torch_files.load(content(), source="model.pt")


def archive(*entries):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        for entry in entries:
            made.writestr(*entry)
    return file.getvalue()


def test_a_zip_bomb_and_names_that_occur_twice_are_refused():
    import warnings

    for case, said in (("bomb", "is compressed or encrypted"), ("twice", "two entries are named")):
        file = io.BytesIO()
        with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for _ in range(2):
                kind = zipfile.ZIP_DEFLATED if case == "bomb" else zipfile.ZIP_STORED
                archive.writestr("a/data.pkl", b"\0" * 10**6, compress_type=kind)
        with pytest.raises(ValueError, match=f"model.pt is refused: .*{said}"):
            torch_files.load(file.getvalue(), source="model.pt")


def test_an_overlapping_zip_is_refused():
    content = writer.zipped(ARRAY)
    central = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 1)
    with pytest.raises(ValueError, match=r"the entry listed as 'archive/byteorder' has another name"):
        torch_files.load(content[: central + 42] + b"\0" * 4 + content[central + 46 :], source="model.pt")
    first = content.index(b"PK\x01\x02")
    size = int.from_bytes(content[first + 20 : first + 24], "little") + 40
    longer = content[: first + 20] + size.to_bytes(4, "little") * 2 + content[first + 28 :]
    with pytest.raises(ValueError, match=r"'archive/byteorder' begins within 'archive/data\.pkl'"):
        torch_files.load(longer, source="model.pt")


def test_files_within_files_have_a_limit_and_are_read_once():
    inner = writer.legacy_storage(ARRAY)
    for _ in range(6):
        inner = writer.pickled(Call(Named("torch.storage", "_load_from_bytes"), (inner,)))
    with pytest.raises(ValueError, match="files within files, more than 4 deep"):
        torch_files.load(inner, source="model.pt")
    large = writer.pickled([0] * 3_000)
    call = b"ctorch.storage\n_load_from_bytes\nh\x00\x85R0"
    content = b"B" + len(large).to_bytes(4, "little") + large + b"q\x000" + call * 3_000 + b"N."
    assert torch_files.load(content, source="model.pt") is None


@pytest.mark.parametrize("form", FORMS)
def test_reading_copies_no_tensor(form, tmp_path):
    """Storages are views of the file, which is mapped: what Python and NumPy take for 16 MB of them is far less."""
    path = tmp_path / "model"
    path.write_bytes(FORMS[form]({"state_dict": {"a": np.ones(3 * 2**20, "f4"), "b": np.ones(2**20, "f4")}}))
    tracemalloc.start()
    try:
        arrays = find_state(torch_files.load_file(path), source="model").arrays
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    assert (arrays["a"].nbytes, arrays["a"][-1], arrays["b"][0]) == (3 * 2**22, 1, 1)


def test_a_file_over_the_limit_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "model.pt"
    with path.open("wb") as file:
        file.truncate(torch_files.MOST_BYTES + 1)  # Of holes: it takes no room on the disk.
    monkeypatch.setattr(loading, "_sha256", None)
    monkeypatch.setattr(torch_files.mmap, "mmap", None)
    for suffix in (".pt", ".safetensors"):
        path = path.rename(path.with_suffix(suffix))
        with pytest.raises(ValueError, match="has 17179869185 bytes, expected 1 to 17179869184"):
            load_pretrained(path)


def test_missing_and_large_files_are_refused(tmp_path):
    path = tmp_path / "model.pt"
    with pytest.raises(FileNotFoundError, match=r"no file .*model\.pt"):
        torch_files.load_file(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="has 0 bytes, expected 1 to"):
        torch_files.load_file(path)
    path.write_bytes(writer.plain(ARRAY))
    with pytest.raises(ValueError, match="bytes, expected 1 to 100"):
        torch_files.load_file(path, most_bytes=100)


# ------------------------------------------------------------------------------------------------------ fuzzing
MODULE = Call(
    Named("torch_utils.persistence", "_reconstruct_persistent_obj"),
    ({"class_name": "EDMPrecond", "state": {"_parameters": {"w": ARRAY}, "_buffers": {}, "_modules": {}}},),
)
SEEDS = [
    *(write({"a": ARRAY, "b": [COUNT, "x"]}) for write in FORMS.values()),
    *(write({"ema": MODULE, "state_dict": {"module.w": ARRAY}}) for write in FORMS.values()),
    *(pickle.dumps({"a": [1, 2.5, ("b", b"c")], 3: OrderedDict(x=1), "s": {"x"}}, protocol) for protocol in range(6)),
]
STEPS = b"(.012FGIJKLMNPQRSTUVXabcdegh}]ijloqrptsu)B\x80\x81\x82" + bytes(range(0x85, 0x97))


@st.composite
def mutated(draw):
    """A file with some bytes replaced, left out, put in or repeated."""
    content = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(content)))
        size = draw(st.integers(0, 8))
        new = draw(st.binary(max_size=6) | st.lists(st.sampled_from(STEPS), max_size=6).map(bytes))
        content[at : at + size] = new * draw(st.integers(1, 3))
    return bytes(content)


#: FUZZ_EXAMPLES=100000 makes it run for minutes.
@settings(max_examples=int(os.environ.get("FUZZ_EXAMPLES", "300")), deadline=None)
@given(content=mutated() | st.lists(st.sampled_from(STEPS), max_size=60).map(bytes) | st.binary(max_size=60))
@example(b"(t\x85\x85.")
@example(b"}q\x00h\x00h\x00s.")
@example(b"\x8f(h\x00\x90.")
def test_any_bytes_are_read_or_refused_and_nothing_is_imported(content):
    before = set(sys.modules)
    said = "fuzzed"
    try:
        find_state(torch_files.load(content, source="fuzzed"), source="fuzzed")
    except ValueError as error:
        said = str(error)
    assert "fuzzed" in said
    # But for an encoding that zip archives have their names in.
    assert {*sys.modules} - before <= {"encodings.cp437"}
