"""Published networks from files in their publishers' formats, against NumPy twins in float64."""

import itertools
import os
import zlib
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pags_jax import alignment, attacks, gradients, models, robustness, sampling, scores
from pags_jax.models import (
    DhariwalUNet,
    PreActivationResNet,
    ResNet,
    SongUNet,
    architectures,
    catalogue,
    load_pretrained,
    loading,
    published,
)
from tests.pags import torch_oracles as oracles
from tests.pags import torch_writer as writer
from tests.pags.torch_writer import Call, Named

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def drawn_anew(request, monkeypatch):
    """Every test draws from its own beginning, whatever ran before it in the same worker."""
    monkeypatch.setitem(globals(), "RNG", np.random.default_rng(zlib.crc32(request.node.name.encode())))


# ------------------------------------------------------------------------------------------------------- the files
def tensors(model, family):
    """Random weights for a network, in PyTorch's layout."""
    shapes = published.tensor_shapes(model, family)
    found = {}
    for name, shape in shapes.items():
        value = RNG.normal(size=shape) / np.sqrt(max(np.prod(shape[1:]), 1))
        leaf = name.rpartition(".")[2]
        if leaf == "running_var" or (leaf == "weight" and len(shape) == 1):
            value = 0.5 + RNG.random(shape)
        found[name] = value.astype("f4")
        if leaf == "running_var":
            found[name.replace("running_var", "num_batches_tracked")] = np.array(7)
    return found | {name: array.astype("f4") for name, array in published.filters(model).items()}


def madry(state, mean, std):
    """As MadryLab's library writes it: everything twice, and functions that only its own Python can make."""
    mean, std = (np.array(values, "f4").reshape(3, 1, 1) for values in (mean, std))
    both = {f"module.{part}model.{name}": value for part in ("", "attacker.") for name, value in state.items()}
    normalisers = {
        f"module.{part}.new_{name}": value
        for part in ("normalizer", "attacker.normalize")
        for name, value in (("mean", mean), ("std", std))
    }
    made = Call(Named("dill._dill", "_create_function"), (Call(Named("dill._dill", "_create_code"), (1, b"\x97")), {}))
    extras = {"optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}, "schedule_fn": made, "epoch": 150, "amp": None}
    return {"model": normalisers | both, **extras}


def persistent(kind, state, **attributes):
    meta = {"type": "class", "version": 6, "module_src": "raise SystemExit", "class_name": kind}
    meta["state"] = {"training": False, "_parameters": {}, "_buffers": {}, "_modules": {}, **state, **attributes}
    return Call(Named("torch_utils.persistence", "_reconstruct_persistent_obj"), (meta,))


def module(state, kind="Layer", **attributes):
    """A tree of modules out of flat names, as EDM writes them."""
    parts = {"_parameters": {}, "_buffers": {}, "_modules": {}}
    inner = {}
    for name, value in state.items():
        head, _, rest = name.partition(".")
        if rest:
            inner.setdefault(head, {})[rest] = value
        else:
            parts["_buffers" if head in ("resample_filter", "freqs") else "_parameters"][head] = value
    for name, group in inner.items():
        if name in ("enc", "dec"):
            made = module(group).args[0]["state"]
            parts["_modules"][name] = Call(Named("torch.nn.modules.container", "ModuleDict"), (), made)
        else:
            parts["_modules"][name] = module(group)
    parts["_modules"]["map_none"] = None
    return persistent(kind, parts, **attributes)


def edm(model, state, kind=None, precond="EDMPrecond", **changed):
    recorded = {
        "img_resolution": model.resolution, "in_channels": 3, "out_channels": 3, "label_dim": model.classes,
        "augment_dim": model.augment, "model_channels": model.width, "channel_mult": list(model.multipliers),
        "num_blocks": model.blocks, "attn_resolutions": list(model.attention), "dropout": 0.1,
    }  # fmt: skip
    network = module(state, kind or type(model).__name__, _init_args=(), _init_kwargs=recorded | changed)
    scalar = Call(
        Named("numpy._core.multiarray", "scalar"),
        (Call(Named("numpy", "dtype"), ("f8", False, True), (3, "<", None)), np.float64(model.sigma_data).tobytes()),
    )
    return persistent(precond, {"_modules": {"model": network}}, sigma_data=scalar, label_dim=model.classes)


# ---------------------------------------------------------------------------------------------------- classifiers
CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))
CIFAR100 = ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
OTHER = ((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


def data_parallel(state):
    return {"state_dict": {f"module.{name}": value for name, value in state.items()}}


def with_statistics(names, shape=(1, 3, 1, 1)):
    arrays = [np.array(values, "f4").reshape(shape) for values in OTHER]
    return lambda state: {**dict(zip(names, arrays, strict=True)), **state}


CLASSIFIERS = {
    "madry-cifar": (
        ResNet(classes=5, blocks=(1, 2), width=0.125), "cifar", oracles.resnet, writer.legacy,
        partial(madry, mean=OTHER[0], std=OTHER[1]), (*OTHER, True),
    ),
    "madry-imagenet-wide": (
        ResNet(classes=6, blocks=(1, 1), width=0.125, bottleneck=True, inner=2.0, stages=(8, 12), stem=7), "imagenet",
        partial(oracles.resnet, last="fc", beside="downsample"), writer.zipped,
        partial(madry, mean=OTHER[0], std=OTHER[1]), (*OTHER, True),
    ),
    "cifar-bottleneck": (
        ResNet(classes=3, blocks=(2, 1), width=0.125, bottleneck=True), "cifar", oracles.resnet, writer.legacy,
        lambda state: {f"model.{name}": value for name, value in state.items()}, None,
    ),
    "deepmind-wide": (
        PreActivationResNet(classes=100, blocks=(1, 2, 1), widths=(8, 8, 24), stem=8), "deepmind-wide",
        oracles.deepmind_wide, writer.zipped, data_parallel, (*CIFAR100, False),
    ),
    "deepmind-preact": (
        PreActivationResNet(classes=4, blocks=(1, 2), widths=(8, 16), stem=8, shortcut=3, shortcut_of="input"),
        "deepmind", oracles.deepmind_preact, writer.zipped, with_statistics(("mean", "std"), (3, 1, 1)),
        (*OTHER, False),
    ),
    "trades-wide": (
        PreActivationResNet(classes=4, blocks=(1, 1, 2), widths=(8, 16, 24), stem=4, activation="relu",
                            padding="symmetric", bias=False),
        "trades-wide", oracles.trades_wide, writer.legacy,
        lambda state: {"model_state_dict": {**state, "sub_block1.layer.0.bn1.weight": np.ones(4, "f4")}}, None,
    ),
    "robustbench": (
        PreActivationResNet(classes=4, blocks=(1, 1), widths=(8, 16), stem=8, activation="relu", padding="symmetric",
                            shortcut_of="input", final_norm=False),
        "robustbench", oracles.robustbench_preact, writer.legacy,
        lambda state: {"last": data_parallel(state)["state_dict"], "best": {"module.x": np.ones(1)}}, None,
    ),
    "robustbench-norm": (
        PreActivationResNet(classes=4, blocks=(1, 1), widths=(8, 16), stem=8, activation="relu", padding="symmetric"),
        "robustbench", oracles.robustbench_preact, writer.plain, with_statistics(("mu", "sigma")), (*OTHER, False),
    ),
}  # fmt: skip


def rounded(values):
    return np.array(values, "f4").astype(float)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_and_their_gradients_equal_slow_ones(name, tmp_path):
    model, family, oracle, write, wrap, normaliser = CLASSIFIERS[name]
    state = tensors(model, family)
    (tmp_path / "model.pt").write_bytes(write(wrap(state)))
    apply_fn, about = load_pretrained(tmp_path / "model.pt", dtype=jnp.float64)
    x = RNG.uniform(-0.1, 1.1, (3, 3, 16, 16))
    x[0, :, :2] = [[[0.0], [1.0]]]
    weights = oracles.Tensors(state)

    def slow(x):
        if normaliser:
            x = np.clip(x, 0, 1) if normaliser[2] else x
            mean, std = (rounded(values)[:, None, None] for values in normaliser[:2])
            x = (x - mean) / std
        return oracle(weights, x, blocks=model.blocks)

    labels = jnp.arange(3)
    logits, pull = jax.vjp(jax.jit(apply_fn), jnp.asarray(x.transpose(0, 2, 3, 1)))
    expected = slow(x)
    np.testing.assert_allclose(logits, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
    assert weights.used == {name for name in state if not name.endswith("num_batches_tracked")}
    assert about["parameters"] == sum(
        value.size for name, value in state.items() if not name.endswith(("running_mean", "running_var", "tracked"))
    )
    assert (about["kind"], about["classes"], about["family"]) == ("classifier", model.classes, family)
    assert about["options"] == {**about["options"], "blocks": model.blocks}

    # The gradient of the label's logit along a direction within the pixels that are not clipped.
    gradient = np.asarray(pull(jax.nn.one_hot(labels, model.classes, dtype=jnp.float64))[0]).transpose(0, 3, 1, 2)
    clipped = (x < 0) | (x > 1)
    if normaliser and normaliser[2]:
        assert np.all(gradient[clipped] == 0)
        assert np.all(gradient[~clipped] != 0)
    direction = RNG.normal(size=x.shape) * ~clipped * (x > 1e-3) * (x < 1 - 1e-3)
    step = 1e-6
    change = (slow(x + step * direction) - slow(x - step * direction))[labels, labels] / (2 * step)
    np.testing.assert_allclose((gradient * direction).sum((1, 2, 3)), change, rtol=2e-5, atol=1e-7)


def test_a_pixel_at_the_edge_of_the_clip_keeps_its_gradient():
    model = models.Normalised(_Sum(), (0.0,), (1.0,), clamp=True)
    x = jnp.array([-0.5, 0.0, 0.5, 1.0, 1.5]).reshape(1, 5, 1, 1)
    gradient = jax.grad(lambda x: model.apply({}, x).sum())(x)
    assert gradient.ravel().tolist() == [0, 1, 1, 1, 0]


class _Sum(models.LeNet):
    classes: int = 1

    def __call__(self, x, *, train=False):
        return x.sum((1, 2))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_other_precisions_are_near(dtype, tmp_path):
    model, family, oracle, write, wrap, _ = CLASSIFIERS["deepmind-wide"]
    state = tensors(model, family)
    (tmp_path / "model.pt").write_bytes(write(wrap(state)))
    x = RNG.random((2, 3, 16, 16)).astype("f4")
    mean, std = (rounded(values)[:, None, None] for values in CIFAR100)
    expected = oracle(oracles.Tensors(state), (x - mean) / std, blocks=model.blocks)
    apply_fn, _ = load_pretrained(tmp_path / "model.pt", dtype=dtype)
    logits = jax.jit(apply_fn)(jnp.asarray(x.transpose(0, 2, 3, 1)))
    assert logits.dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(apply_fn))
    np.testing.assert_allclose(logits, expected, atol=(1e-5 if dtype == jnp.float32 else 0.1) * np.abs(expected).max())


# ----------------------------------------------------------------------------------------------------- denoisers
DENOISERS = {
    "ddpmpp": SongUNet(classes=3, resolution=8, width=8, multipliers=(1, 2), blocks=1, attention=(4,), augment=9),
    "ncsnpp": SongUNet(
        resolution=8, width=8, multipliers=(2, 2), blocks=1, attention=(8,), noise_width=2, frequencies="fourier",
        encoder="residual", taps=(1.0, 3.0, 3.0, 1.0), sigma_data=0.4,
    ),
    "adm": DhariwalUNet(classes=3, resolution=8, width=64, multipliers=(1, 2), blocks=1, attention=(8, 4)),
}  # fmt: skip
NCSNPP = {"embedding_type": "fourier", "encoder_type": "residual", "channel_mult_noise": 2}


@pytest.mark.parametrize(
    "name", ["ddpmpp", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ncsnpp", "adm"))]
)
def test_denoisers_equal_slow_ones(name, tmp_path):
    model = DENOISERS[name]
    state = tensors(model, "edm")
    changed = NCSNPP if name == "ncsnpp" else {}
    (tmp_path / "network.pkl").write_bytes(writer.plain({"loss": 1, "ema": edm(model, state, **changed)}))
    denoise, about = load_pretrained(tmp_path / "network.pkl", dtype=jnp.float64)
    assert about["options"] == architectures.facts(model, {"params": {}})["options"]
    assert (about["kind"], about["resolution"], about["entry"]) == ("denoiser", 8, ["ema"])
    assert isinstance(denoise, scores.Preconditioned)
    x, levels = RNG.normal(size=(2, 3, 8, 8)), (0.02, 3.0)
    # Of the second image no class is told; one number beyond the classes does it where labels are traced.
    labels, rows = (jnp.array([1, 3]), np.eye(4)[[1, 3], :3]) if model.classes else (None, None)
    found = jax.jit(denoise)(jnp.asarray(x.transpose(0, 2, 3, 1)), jnp.array(levels), labels)
    weights = oracles.Tensors(state)
    for i, sigma in enumerate(levels):
        row = None if rows is None else rows[i : i + 1]
        song = isinstance(model, SongUNet)
        expected = oracles.denoised(
            weights, x[i : i + 1], sigma, row, sizes=(8, 4), blocks=1, song=song, sigma_data=model.sigma_data
        )[0]
        np.testing.assert_allclose(
            np.asarray(found[i]).transpose(2, 0, 1), expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max()
        )
    assert weights.used == set(state)
    if not model.classes:
        with pytest.raises(ValueError, match="knows no classes"):
            denoise(found, 0.5, 1)


def slow_steps(denoise, x, steps, method):
    """The deterministic sampler of Karras et al. (2022), equation 5 and algorithm 1, in NumPy."""
    i = np.arange(steps)
    t = [*((80 ** (1 / 7) + i / (steps - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7), 0.0]
    x = t[0] * x
    for now, then in itertools.pairwise(t):
        d = (x - denoise(x, now)) / now
        following = x + (then - now) * d
        if method == "heun" and then != 0:
            other = (following - denoise(following, then)) / then
            following = x + (then - now) * (d / 2 + other / 2)
        x = following
    return x


@pytest.mark.parametrize("method", ["euler", pytest.param("heun", marks=pytest.mark.slow)])
def test_an_imported_denoiser_draws_what_the_papers_sampler_draws(method, tmp_path):
    model = DENOISERS["ddpmpp"]
    state = tensors(model, "edm")
    (tmp_path / "network.pkl").write_bytes(writer.plain({"ema": edm(model, state)}))
    denoise, _ = load_pretrained(tmp_path / "network.pkl", dtype=jnp.float64)
    noise, labels = RNG.normal(size=(2, 3, 8, 8)), np.array([1, 2])
    weights = oracles.Tensors(state)

    def slow(x, sigma):
        parts = (
            oracles.denoised(
                weights, x[i : i + 1], sigma, np.eye(3)[labels[i : i + 1]], sizes=(8, 4), blocks=1, song=True
            )
            for i in range(len(x))
        )
        return np.concatenate(list(parts))

    expected = slow_steps(slow, noise, 4, method)
    conditional = jax.jit(lambda x, sigma: denoise(x, sigma, jnp.asarray(labels)))
    step = scores.heun_step if method == "heun" else sampling.euler_step
    start = jnp.asarray(noise.transpose(0, 2, 3, 1))
    found = scores.sample(conditional, start, scores.noise_schedule(4), step=step)
    np.testing.assert_allclose(np.asarray(found).transpose(0, 3, 1, 2), expected, atol=1e-9 * np.abs(expected).max())
    if method == "heun":
        known = np.arange(8)[None, :, None, None] < 4
        x = jnp.asarray(RNG.uniform(-1, 1, found.shape))
        filled = sampling.inpaint(
            conditional, x, known, scores.noise_schedule(3), key=jax.random.key(0), repeats=2, step=sampling.euler_step
        )
        np.testing.assert_array_equal(filled[:, :4], x[:, :4])
        assert np.isfinite(filled).all()
        assert not np.allclose(filled[:, 4:], x[:, 4:], atol=0.1)


def test_the_schedule_is_that_of_the_paper():
    i = np.arange(18)
    levels = [*((80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7), 0.0]
    np.testing.assert_allclose(scores.noise_schedule(18), levels, rtol=1e-12)


# ----------------------------------------------------------------------------------------------------- the measures
@pytest.mark.slow
def test_every_measure_takes_imported_networks(tmp_path):
    """Engstrom's kind of classifier and EDM's kind of denoiser, both small, from files as their publishers write."""
    network = ResNet(classes=3, blocks=(1, 1), width=0.125, bottleneck=True)
    (tmp_path / "robust.pt").write_bytes(writer.legacy(madry(tensors(network, "cifar"), *OTHER)))
    (tmp_path / "edm.pkl").write_bytes(
        writer.plain({"ema": edm(DENOISERS["ddpmpp"], tensors(DENOISERS["ddpmpp"], "edm"))})
    )
    apply_fn, _ = load_pretrained(tmp_path / "robust.pt")
    denoise, _ = load_pretrained(tmp_path / "edm.pkl")
    x, y = jnp.asarray(RNG.random((3, 8, 8, 3)), jnp.float32), jnp.arange(3)
    gradient = gradients.input_gradients(apply_fn, x, y, target="logit")
    score = scores.score(denoise.of(y), x, sigma_pm1=0.5)
    # Against the denoiser's values, and against a difference of the classifier's.
    clean = denoise(2 * x - 1, 0.5, y)
    np.testing.assert_allclose(score, (clean - (2 * x - 1)) / 0.25, rtol=1e-3, atol=1e-4)
    step = 1e-2 * gradient / jnp.linalg.norm(gradient)
    change = apply_fn(x + step)[y, y].sum() - apply_fn(x - step)[y, y].sum()
    np.testing.assert_allclose(change, 2 * (gradient * step).sum(), rtol=0.05)
    cosine, similarity = alignment.cosine(gradient, score), alignment.perceptual_similarity(gradient, score)
    assert (np.abs(cosine) < 1).all()
    assert (similarity < 1).all()
    assert np.isfinite([cosine, similarity]).all()
    basis = jnp.linalg.qr(jnp.asarray(RNG.normal(size=(3, 192, 5)), jnp.float32))[0].mT.reshape(3, 5, 8, 8, 3)
    deviations = robustness.manifold_robustness(apply_fn, x, basis, key=jax.random.key(0), eps_l2=1.0)
    assert np.isfinite(deviations).all()
    delta = attacks.pgd(apply_fn, x, y, key=jax.random.key(1), eps_l2=1.0, steps=2)
    np.testing.assert_allclose(jnp.linalg.norm(delta.reshape(3, -1), axis=1), 1, rtol=1e-4)


# ------------------------------------------------------------------------------------------------- what is refused
@pytest.fixture(scope="module")
def wide():
    model = PreActivationResNet(classes=4, blocks=(1, 1, 1), widths=(8, 16, 24), stem=8)
    return tensors(model, "deepmind-wide")


def refuse(path, content, said, **options):
    path = path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=said) as refused:
        load_pretrained(path, **options)
    assert str(path) in str(refused.value) or options


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"logits.bias": None}, "lacks logits.bias of the .* tensors of this PreActivationResNet"),
        ({"logits.more": np.ones(2, "f4")}, "has logits.more, which this PreActivationResNet does not have"),
        ({"layer.1.block.0.conv_1.weight": np.ones((16, 16, 3, 1), "f4")}, r"has the shape \(16, 16, 3, 1\), expected"),
        ({"batchnorm.bias": np.full(24, np.nan, "f4")}, "batchnorm.bias holds NaN or infinite values"),
        ({"batchnorm.bias": np.arange(24)}, "batchnorm.bias is of the type int64, expected floats"),
        ({"layer.1.block.99999999.conv_0.weight": np.ones(1, "f4")}, "it names block 99999999 and has"),
        ({"init_conv.weight": None}, "holds tensors of a network that is not known, such as batchnorm.bias"),
        ({"layer.1.block.0.conv_0.weight": None}, "lacks tensors of the network that the others belong to"),
        ({"mean": np.ones(3, "f4"), "std": np.zeros(3, "f4")}, "are no means and standard deviations"),
    ],
)
def test_other_tensors_than_the_networks_are_refused(change, said, wide, tmp_path):
    state = {name: value for name, value in {**wide, **change}.items() if value is not None}
    refuse(tmp_path, writer.zipped(state), said)


def test_files_without_a_model_and_wrong_options_are_refused(wide, tmp_path):
    refuse(tmp_path, writer.plain({"a": 1, "b": [2]}), "holds no model that is known: it is a dict of a, b")
    refuse(tmp_path, writer.plain([1]), "holds no model that is known: it is a list")
    call = Call(Named("builtins", "print"), ("hello",))
    refuse(tmp_path, writer.plain({"model": call}), "holds what builtins.print makes where a module should be")
    refuse(
        tmp_path, writer.zipped({"state_dict": wide}), "has no entry 'ema'; it has a dict of state_dict", entry="ema"
    )
    refuse(tmp_path, writer.zipped(wide), "PreActivationResNet does not have the options depth", depth=3)
    refuse(
        tmp_path, writer.zipped(wide), "`dtype` must be float64, float32, bfloat16 or float16, got int8", dtype="int8"
    )
    twice = madry(tensors(CLASSIFIERS["madry-cifar"][0], "cifar"), *OTHER)
    twice["model"]["module.attacker.model.linear.bias"] = np.zeros(5, "f4")
    refuse(tmp_path, writer.legacy(twice), "attacker.linear.bias is not the same|is not the same as the model's own")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"activation": "gelu"}, r"`activation` of a PreActivationResNet must be one of 'silu', 'relu', got 'gelu'"),
        ({"padding": "valid"}, r"`padding` .* must be one of 'same', 'symmetric', got 'valid'"),
        ({"shortcut_of": None}, r"`shortcut_of` .* must be one of 'input', 'activated', got None"),
    ],
)
def test_options_that_no_network_has_are_refused(options, said, wide, tmp_path):
    """Any activation but "silu" would be a ReLU, without a word."""
    refuse(tmp_path, writer.zipped(wide), said, **options)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("imagenet", r"`normaliser` must be the mean and the standard .* got imagenet"),
        (OTHER, r"whether to clip .* such as \(\(0.5, 0.5, 0.5\), "),
        (((0.5,) * 2, (0.5,) * 2, False), "of the 3 channels"),
        ((OTHER[0], (0.0,) * 3, False), "finite, and the latter above 0"),
        ((OTHER[0], (np.nan,) * 3, False), "finite, and the latter above 0"),
    ],
)
def test_a_normaliser_that_is_none_is_refused(given, said):
    with pytest.raises(ValueError, match=said):
        loading._chosen(given, None, "cifar", 10, 3, Path("model.pt"))


def test_a_normaliser_of_other_channels_and_one_of_a_denoiser_are_refused(wide, tmp_path):
    for size, said in (
        (2, r"model\.pt: `normaliser` must be .* of the 3 channels"),
        (2000, "mean and std are no means"),
    ):
        content = writer.zipped({**wide, "mean": np.ones(size, "f4"), "std": np.ones(size, "f4")})
        refuse(tmp_path, content, said)
    content = writer.zipped({**wide, "mean": np.full((1, 1, 1), 0.5, "f4"), "std": np.full((1, 1, 1), 0.25, "f4")})
    (tmp_path / "model.pt").write_bytes(content)
    about = models.read_pretrained(tmp_path / "model.pt").about
    assert about["normaliser"] == {"mean": (0.5,) * 3, "std": (0.25,) * 3, "clamp": False}
    model = DENOISERS["ddpmpp"]
    content = writer.plain({"ema": edm(model, tensors(model, "edm"))})
    refuse(tmp_path, content, "takes images in .* as they are: leave `normaliser` out", normaliser=(*OTHER, False))


def test_engstroms_network_has_its_normaliser_by_path_as_by_name(tmp_path, monkeypatch):
    model = ResNet(classes=3, blocks=(1, 1), width=0.125, bottleneck=True)
    state = tensors(model, "cifar")
    parameters = sum(v.size for name, v in state.items() if "running" not in name and "tracked" not in name)
    entry = catalogue.PUBLISHED["engstrom-resnet50-l2"]
    path = tmp_path / entry.file
    path.write_bytes(writer.legacy(state))
    assert models.read_pretrained(path).about["normaliser"] is None  # It is another network of the same file's name.
    expected = {"kind": "classifier", "parameters": parameters, "classes": 3}
    monkeypatch.setitem(catalogue.PUBLISHED, "engstrom-resnet50-l2", entry._replace(expected=expected))
    by_path = models.read_pretrained(path).about["normaliser"]
    assert by_path == models.read_pretrained("engstrom-resnet50-l2", folder=tmp_path).about["normaliser"]
    assert by_path["std"] == tuple(rounded((0.2023, 0.1994, 0.2010)).tolist())


@pytest.mark.parametrize("shape", [(1, 1, 2, 1), (2, 1, 2, 2), (1, 1, 0, 0), (1, 1, 40, 40), (), (3,)])
def test_a_filter_of_another_shape_is_refused(shape, tmp_path):
    model = DENOISERS["ddpmpp"]
    state = tensors(model, "edm")
    name = next(name for name in state if name.endswith("resample_filter"))
    state = {name: np.ones(shape, "f4"), **{other: value for other, value in state.items() if other != name}}
    refuse(
        tmp_path, writer.plain({"ema": edm(model, state)}), "filter that resamples has the shape|is another filter than"
    )


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"kind": "\x1b[2J"}, r"says \\x1b\[2J, and its tensors"),
        ({"precond": "\x1b[2JPrecond"}, r"the preconditioning \\x1b\[2JPrecond is not"),
        ({"embedding_type": "\x1b[2J" + "x" * 999}, r"was made with embedding_type=\\x1b\[2Jx"),
    ],
)
def test_what_an_edm_file_says_cannot_reach_a_terminal(made, said, tmp_path):
    model = DENOISERS["ddpmpp"]
    path = tmp_path / "model.pt"
    path.write_bytes(writer.plain({"ema": edm(model, tensors(model, "edm"), **made)}))
    with pytest.raises(ValueError, match=said) as refused:
        load_pretrained(path)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 500


def test_a_stage_without_a_twin_is_left_over(wide, tmp_path):
    content = writer.zipped({**wide, "sub_block1.layer.0.bn1.weight": np.ones(4, "f4")})
    refuse(tmp_path, content, r"has sub_block1\.layer\.0\.bn1\.weight, which this PreActivationResNet does not have")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (
            "rebuffi-wrn-28-10",
            "no published weights of this name; near it: rebuffi-wrn-28-10-l2, rebuffi-wrn-28-10-linf",
        ),
        ("EDM-CIFAR10", "near it: edm-cifar10, "),
        ("qqqq", r"of this name; models\.catalogue\.PUBLISHED has all names"),
        ("nothere.pt", r"no file nothere\.pt: check the path"),
        ("/", "no file /: it is a folder; pass the path of a file in it"),
        ("a" * 300, "no file aaa"),
        ("a\0b", "no file a"),
    ],
)
def test_where_no_file_is_the_message_says_what_may_be_meant(path, said):
    with pytest.raises(FileNotFoundError, match=said):
        load_pretrained(path)


#: A tuple in a tuple, and so on: hashing one ends the process, comparing and printing one raises.
DEEP = writer.Raw(b")" + b"\x85" * 200_000)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"kind": "DhariwalUNet"}, "says DhariwalUNet, and its tensors are those of a SongUNet"),
        ({"precond": "VPPrecond"}, "the preconditioning VPPrecond is not supported"),
        ({"model_channels": 16}, "was made with model_channels=16, and its tensors have 8"),
        ({"channel_mult": [1, 1]}, r"was made with channel_mult=\(1, 1\), and its tensors have \(1, 2\)"),
        ({"attn_resolutions": [8]}, "was made with attn_resolutions="),
        ({"label_dim": 0}, "was made with label_dim=0, and its tensors have 3"),
        # Every run has it among the examples of `test_hostile_files`.
        pytest.param({"attn_resolutions": [DEEP]}, "was made with attn_resolutions=", marks=pytest.mark.weekly),
        pytest.param({"channel_mult": DEEP}, "was made with channel_mult=", marks=pytest.mark.slow),
        ({"num_blocks": [[1]]}, "was made with num_blocks="),
    ],
)
def test_networks_that_are_not_what_the_file_says_are_refused(made, said, tmp_path):
    model = DENOISERS["ddpmpp"]
    refuse(tmp_path, writer.plain({"ema": edm(model, tensors(model, "edm"), **made)}), said)


WRAPPED = {
    "an entry of another name": lambda state, more: {"weights": state, "epoch": 3, "more": {"x": 1}},
    "prefixes that nobody listed": lambda state, more: {f"backbone.encoder.{name}": v for name, v in state.items()},
    "a dict of a class of its own": lambda state, more: Call(
        Named("training", "Snapshot"), (), None,
        {"state_dict": Call(Named("training", "OrderedWeights"), (), {"_metadata": 1}, state), "epoch": 3},
    ),
    "entries within entries": lambda state, more: {"checkpoint": {"model": {"state_dict": state, "lr": 0.1}}, "n": [1]},
    "a sequence of normaliser and network": lambda state, more: {
        "0.mean": more, "0.std": more, **{f"module.1.{name}".removeprefix("module."): v for name, v in state.items()}
    },
}  # fmt: skip


@pytest.mark.parametrize("name", WRAPPED)
def test_weights_are_found_in_what_others_wrap_them_in(name, wide, tmp_path):
    content = WRAPPED[name](wide, np.array([0.5, 0.25, 0.5], "f4").reshape(3, 1, 1))
    (tmp_path / "model.pt").write_bytes(writer.zipped(content))
    _, variables, about = models.read_pretrained(tmp_path / "model.pt")
    np.testing.assert_array_equal(variables["params"]["network"]["dense"]["bias"], wide["logits.bias"])
    if "normaliser" in name:
        assert about["normaliser"]["std"] == (0.5, 0.25, 0.5)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (Call(Named("torch._utils", "_rebuild_sparse_tensor"), (Named("torch", "sparse_coo"), ())),
         r"epoch, among tensors by name, is what torch\._utils\._rebuild_sparse_tensor makes, no dense tensor"),
        (3, "epoch, among tensors by name, is 3, no dense tensor"),
        (None, "epoch, among tensors by name, is None"),
    ],
)  # fmt: skip
def test_what_is_no_tensor_among_tensors_is_named(other, said, wide, tmp_path):
    refuse(tmp_path, writer.zipped({"state_dict": {**wide, "epoch": other}}), said)
    refuse(tmp_path, writer.zipped({"state_dict": {**wide, "a\x1b[2J": np.ones(2, "f4")}}), r"the name a\\x1b\[2J")


def test_two_entries_with_weights_are_not_guessed_between(wide, tmp_path):
    refuse(tmp_path, writer.zipped({"one": wide, "other": wide}), "it is a dict of one, other")


@pytest.mark.parametrize("dtype", ["f2", "f8", jnp.bfloat16])
def test_storages_of_other_types_come_back_in_float32(dtype, wide, tmp_path):
    state = {name: v.astype(dtype) if v.dtype == "f4" else v for name, v in wide.items()}
    for write in (writer.zipped, writer.legacy, writer.plain):
        (tmp_path / "model.pt").write_bytes(write({"state_dict": state}))
        _, variables, _ = models.read_pretrained(tmp_path / "model.pt")
        kernel = variables["params"]["network"]["dense"]["kernel"]
        np.testing.assert_array_equal(kernel, state["logits.weight"].astype("f4").T, strict=True)


def test_averaged_weights_are_taken_unless_others_are_asked_for(wide, tmp_path):
    other = {name: np.asarray(value + 1, value.dtype) for name, value in wide.items()}
    (tmp_path / "model.pt").write_bytes(writer.zipped({"state_dict": wide, "ema_state_dict": other, "epoch": 3}))
    for entry, said, expected in ((None, "ema_state_dict", other), ("state_dict", "state_dict", wide)):
        _, variables, about = models.read_pretrained(tmp_path / "model.pt", entry=entry)
        assert about["entry"] == [said]
        bias = variables["params"]["network"]["dense"]["bias"]
        np.testing.assert_array_equal(bias, expected["logits.bias"])


# ------------------------------------------------------------------------------------------------------ full sizes
ADM = DhariwalUNet(
    classes=1000, resolution=64, width=192, multipliers=(1, 2, 3, 4), blocks=3, attention=(32, 16, 8)
)  # fmt: skip


@pytest.mark.parametrize(
    ("model", "family", "parameters", "tensors"),
    [
        (SongUNet(augment=9), "edm", 55_733_891, 425),
        (ADM, "edm", 295_899_267, 553),
        (models.wide_resnet(28, 10, classes=10), "deepmind-wide", 36_479_194, None),
        pytest.param(
            models.wide_resnet(70, 16, classes=10), "deepmind-wide", 266_796_506, None, marks=pytest.mark.weekly
        ),
        (
            PreActivationResNet(
                classes=10, blocks=(2,) * 4, widths=(64, 128, 256, 512), stem=64, shortcut_of="input", final_norm=False
            ),
            "robustbench", 11_171_146, None,
        ),
        (ResNet(classes=10, blocks=(3, 4, 6, 3), bottleneck=True), "cifar", 23_520_842, None),
        pytest.param(
            ResNet(classes=1000, blocks=(3, 4, 6, 3), bottleneck=True, stem=7), "imagenet", 25_557_032, 267,
            marks=pytest.mark.weekly,
        ),
        (ResNet(classes=1000, blocks=(3, 4, 6, 3), bottleneck=True, stem=7, inner=2.0), "imagenet", 68_883_240, 267),
    ],
)  # fmt: skip
def test_full_sizes_have_the_published_numbers_of_parameters_and_tensors(model, family, parameters, tensors):
    shapes = published.tensor_shapes(model, family)
    statistics = ("running_mean", "running_var", "resample_filter", "freqs")
    assert sum(int(np.prod(shape)) for name, shape in shapes.items() if not name.endswith(statistics)) == parameters
    assert tensors in (None, len(shapes))


# ----------------------------------------------------------------------------------------------------- real files
CHECKPOINTS = os.environ.get("PAGS_CHECKPOINTS")


@pytest.mark.skipif(not CHECKPOINTS, reason="PAGS_CHECKPOINTS names no folder of checkpoints and recorded outputs")
def test_recorded_outputs_of_real_files():
    recorded = sorted(Path(CHECKPOINTS or "").glob("*.npz"))
    assert recorded
    for path in recorded:
        (file,) = (file for file in path.parent.glob(f"{path.stem}.*") if file != path)
        function = jax.jit(load_pretrained(file)[0])
        arrays = np.load(path)
        x = jnp.asarray(arrays["x"].transpose(0, 2, 3, 1))

        def close(found, name, arrays=arrays):
            expected = arrays[name]
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())

        for name in (name for name in arrays if name.startswith("denoised_")):
            _, sigma, *null = name.split("_")
            labels = arrays["labels"] if "labels" in arrays and not null else None
            out = function(x, float(sigma), None if labels is None else jnp.asarray(labels))
            close(np.asarray(out).transpose(0, 3, 1, 2), name)
        if "logits" in arrays:
            index = jnp.arange(len(x))
            gradient = jax.jit(jax.grad(lambda x, f=function, i=index: f(x)[i, i].sum()))(x)
            close(function(x), "logits")
            close(np.asarray(gradient).transpose(0, 3, 1, 2), "logit_gradient")
