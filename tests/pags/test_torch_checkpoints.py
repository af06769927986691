"""Files that PyTorch itself writes, of every kind that a publisher may make, are read exactly or refused by name."""

import argparse
import collections
import operator
import pickle

import jax.numpy as jnp
import numpy as np
import pytest

from pags_jax.models import PreActivationResNet, published, read_pretrained

torch = pytest.importorskip("torch", reason="needs the extra bench")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

MODEL = PreActivationResNet(classes=4, blocks=(1, 1), widths=(4, 8), stem=4)
KERNEL, DENSE, BIAS = "layer.1.block.0.conv_1.weight", "logits.weight", "logits.bias"


class Weights(collections.OrderedDict):
    """As training libraries have them."""


def weights():
    draw = np.random.default_rng(0)
    shapes = published.tensor_shapes(MODEL, "deepmind-wide").items()
    return {name: torch.from_numpy(draw.uniform(0.5, 1.5, shape).astype("f4")) for name, shape in shapes}


def all_of(change):
    return lambda state: {name: change(tensor) for name, tensor in state.items()}


def one(name, change):
    return lambda state: {**state, name: change(state[name])}


def in_one_storage(state):
    flat, parts, at = torch.cat([tensor.flatten() for tensor in state.values()]), {}, 0
    for name, tensor in state.items():
        parts[name] = flat[at : at + tensor.numel()].view(tensor.shape)
        at += tensor.numel()
    return parts


def as_module(state):
    network = torch.nn.Module()
    for name, tensor in state.items():
        *path, leaf = name.split(".")
        module = network
        for part in path:
            if part not in module._modules:
                module.add_module(part, torch.nn.Module())
            module = module._modules[part]
        register = module.register_buffer if leaf.startswith("running") else module.register_parameter
        register(leaf, tensor if leaf.startswith("running") else torch.nn.Parameter(tensor))
    return network


EXTRAS = {
    "epoch": 3, "args": argparse.Namespace(lr=0.1), "size": torch.Size([1, 2]), "dtype": torch.float32, "f": len,
    "device": torch.device("cuda:0"), "accuracy": np.float64(0.3), "rows": np.arange(3), "rng": torch.get_rng_state(),
}  # fmt: skip
READ = {
    "tensors": lambda state: state,
    "entry and prefixes": lambda state: {"state_dict": {f"module.model.{n}": t for n, t in state.items()}, **EXTRAS},
    "a class of its own": lambda state: Weights(state_dict=Weights(state)),
    "parameters": all_of(lambda tensor: torch.nn.Parameter(tensor)),
    "channels last": all_of(lambda t: t.to(memory_format=torch.channels_last) if t.ndim == 4 else t),
    "turned": one(KERNEL, lambda t: t.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)),
    "part of a storage": one(DENSE, lambda t: torch.cat([t * 0, t, t * 0])[len(t) : 2 * len(t)]),
    "every second element": one(DENSE, lambda t: torch.stack([t, t * 0], -1)[..., 0]),
    "one storage": in_one_storage,
    "a module": lambda state: {"net": torch.nn.DataParallel(as_module(state)), "accuracy": 0.5},
    "half": all_of(lambda tensor: tensor.half()),
    "bfloat16": all_of(lambda tensor: tensor.bfloat16()),
    "double": all_of(lambda tensor: tensor.double()),
}
REFUSED = {
    "complex": (one(BIAS, lambda t: torch.complex(t, t)), r"type torch\.ComplexFloatStorage are not read: save"),
    "quantised": (one(DENSE, lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8)), "QInt8Storage are not read"),
    "8 bits": (one(DENSE, lambda t: t.to(torch.float8_e4m3fn)), r"torch\.float8_e4m3fn are not read: save them"),
    "sparse": (one(DENSE, lambda t: t.to_sparse()), r"logits\.weight, among tensors by name, is what .*_sparse_tensor"),
    "no storage": (one(DENSE, lambda t: t.to("meta")), r"logits\.weight, among tensors by name, is what .*meta_tensor"),
    "repeated": (one(BIAS, lambda t: t[:1].clone().expand(4)), r"repeats the 1 elements .* save its contiguous\(\)"),
    "negated later": (one(BIAS, lambda t: torch._neg_view(t.clone())), r"to be negated .* save its resolve_neg\(\)"),
    "whole numbers": (one(DENSE, lambda t: t.int()), r"logits\.weight is of the type int32, expected floats"),
    "a number": (lambda state: {**state, "epoch": 3}, "epoch, among tensors by name, is 3, no dense tensor"),
    "a list": (lambda state: [state], "holds no model that is known: it is a list"),
}
CONTAINERS = {
    "zip": torch.save,
    "legacy": lambda value, path: torch.save(value, path, _use_new_zipfile_serialization=False),
    "protocol 5": lambda value, path: torch.save(value, path, pickle_protocol=5),
    **{
        f"pickle {protocol}": lambda value, path, protocol=protocol: path.write_bytes(pickle.dumps(value, protocol))
        for protocol in (0, 2, 4)
    },
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("kind", READ)
def test_what_pytorch_writes_is_read_exactly(kind, container, tmp_path):
    state = weights()
    CONTAINERS[container](READ[kind](state), tmp_path / "model.pt")
    types = {"half": torch.float16, "bfloat16": torch.bfloat16}
    expected = {name: tensor.to(types.get(kind, torch.float32)).float().numpy() for name, tensor in state.items()}
    params = read_pretrained(tmp_path / "model.pt").variables["params"]["network"]
    np.testing.assert_array_equal(params["dense"]["kernel"], expected[DENSE].T)
    np.testing.assert_array_equal(params["dense"]["bias"], expected[BIAS])
    np.testing.assert_array_equal(
        params["stage1_block0_conv1"]["kernel"], jnp.asarray(expected[KERNEL].transpose(2, 3, 1, 0))
    )


@pytest.mark.parametrize("container", ["zip", "legacy", "pickle 4"])
@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_is_refused_by_name(kind, container, tmp_path):
    change, said = REFUSED[kind]
    CONTAINERS[container](change(weights()), tmp_path / "model.pt")
    with pytest.raises(ValueError, match=rf"model\.pt.*{said}"):
        read_pretrained(tmp_path / "model.pt")


def test_a_file_without_checksums_and_a_torchscript_archive_are_refused_with_what_to_save(tmp_path):
    path = tmp_path / "model.pt"
    try:
        torch.serialization.set_crc32_options(False)
        torch.save(weights(), path)
    finally:
        torch.serialization.set_crc32_options(True)
    with pytest.raises(ValueError, match=r"does not have its checksum, unless it was saved without"):
        read_pretrained(path)
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))
    with pytest.raises(ValueError, match=r"TorchScript archive, save the state_dict"):
        read_pretrained(path)


@pytest.mark.parametrize("container", ["zip", "legacy", "pickle 4"])
@pytest.mark.parametrize("name", ["load", "jit.load", "hub.load"])
def test_pytorchs_own_loaders_are_refused_by_name(name, container, tmp_path):
    class Loads:
        def __reduce__(self):
            return operator.attrgetter(name)(torch), ("other.pt",)

    CONTAINERS[container]({"state_dict": weights(), "more": Loads()}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model\.pt is refused: .*it asks to call torch.*load, which no weights need"):
        read_pretrained(tmp_path / "model.pt")
