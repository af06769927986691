"""Classifiers against published parameter counts and slow float64 forward passes in NumPy and SciPy."""

from functools import partial
from itertools import pairwise

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate2d

from pags_jax import models
from pags_jax.models import layers
from pags_jax.models.layers import BatchNorm, max_pool
from pags_jax.models.resnet import Block
from scripts.harness import compiling
from tests.placing import drawn_like


def convolve(x, kernel, stride=1, padding=0):
    """Cross-correlation of ``(h, w, c)`` with ``(i, j, c, k)``, one plane at a time."""
    x = np.pad(x, ((padding, padding), (padding, padding), (0, 0)))
    planes = [
        sum(correlate2d(x[..., c], kernel[..., c, k], mode="valid") for c in range(x.shape[-1]))
        for k in range(kernel.shape[-1])
    ]
    return np.stack(planes, axis=-1)[::stride, ::stride]


def float64(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), tree)


@pytest.mark.parametrize(
    ("name", "classes", "stem", "shape", "count"),
    [
        ("lenet", 10, 3, (28, 28, 1), 1_199_882),
        ("vgg11", 10, 3, (32, 32, 3), 9_231_114),
        ("resnet18", 10, 3, (32, 32, 3), 11_173_962),
        ("resnet34", 10, 3, (32, 32, 3), 21_282_122),
        ("resnet50", 10, 3, (32, 32, 3), 23_520_842),
        pytest.param("resnet18", 100, 3, (32, 32, 3), 11_220_132, marks=pytest.mark.weekly),
        ("resnet18", 1000, 7, (224, 224, 3), 11_689_512),
        pytest.param("resnet34", 1000, 7, (224, 224, 3), 21_797_672, marks=pytest.mark.weekly),
        ("resnet50", 1000, 7, (224, 224, 3), 25_557_032),
    ],
)
def test_parameter_counts_are_the_published_ones(name, classes, stem, shape, count):
    model = models.create(name, classes=classes, stem=stem)
    x = jnp.zeros((2, *shape), jnp.float32)
    variables = jax.eval_shape(lambda key: models.init(model, x, key=key), jax.random.key(0))
    assert models.count_parameters(variables) == count
    logits = jax.eval_shape(lambda variables: model.apply(variables, x), variables)
    assert (logits.shape, logits.dtype) == ((2, classes), jnp.float32)


def test_patches_as_a_stem_are_a_convolution_with_a_step_of_two():
    model = models.create("resnet14", classes=3, stem=2, width=0.125, activation="softplus")
    x = jax.random.uniform(jax.random.key(0), (2, 8, 8, 3), jnp.float32)
    variables = drawn_like(model.init, x)
    watched = partial(model.apply, capture_intermediates=lambda module, _: module.name == "Conv_0")
    _, state = jax.jit(watched)(variables, x)
    (found,) = state["intermediates"]["Conv_0"]["__call__"]
    kernel = variables["params"]["Conv_0"]["kernel"].reshape(2, 2, 3, 8)
    expected = jax.lax.conv_general_dilated(x, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert variables["params"]["Dense_0"]["kernel"].shape == (32, 3)


def test_a_network_that_resizes_leaves_no_checkerboard():
    """Inside of a constant image every value is the same; patches put together differ by their place."""
    x = jnp.full((1, 32, 32, 2), 0.3, jnp.float32)
    spreads = {}
    for upsampling in ("resize", "patches"):
        model = models.UNet(channels=2, classes=3, widths=(8,), blocks=1, upsampling=upsampling)
        inside = jax.jit(model.apply)(drawn_like(model.init, x), x, 0.0)[0, 13:19, 13:19]
        spreads[upsampling] = float(np.ptp(np.asarray(inside), axis=(0, 1)).max() / np.abs(inside).max())
    assert spreads["resize"] < 1e-4 < 1e-2 < spreads["patches"]


def test_the_7x7_stem_shrinks_fourfold():
    model = models.create("resnet18", classes=10, stem=7)
    x = jnp.zeros((1, 64, 64, 3), jnp.float32)
    variables = jax.eval_shape(lambda key: models.init(model, x, key=key), jax.random.key(0))
    _, state = jax.eval_shape(lambda variables: model.apply(variables, x, capture_intermediates=True), variables)
    assert state["intermediates"]["Block_0"]["__call__"][0].shape == (1, 16, 16, 64)
    assert state["intermediates"]["Block_7"]["__call__"][0].shape == (1, 2, 2, 512)


@pytest.mark.parametrize("activation", ["relu", "softplus"])
def test_p10_lenet_equals_a_slow_forward_pass(activation):
    model = models.create("lenet", classes=3, activation=activation, beta=5.0)
    rng = np.random.default_rng(0)
    x = rng.random((2, 11, 10, 2))
    variables = float64(drawn_like(model.init, x.astype(np.float32)))
    params = jax.tree.map(np.asarray, variables["params"])

    def activate(values):
        return np.maximum(values, 0) if activation == "relu" else np.logaddexp(0, 5 * values) / 5

    for image, logits in zip(x, models.evaluator(model, variables)(jnp.asarray(x)), strict=True):
        for layer in ("Conv_0", "Conv_1"):
            image = activate(convolve(image, params[layer]["kernel"]) + params[layer]["bias"])
        pooled = np.array(
            [[image[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max((0, 1)) for j in range(3)] for i in range(3)]
        )
        hidden = activate(pooled.ravel() @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"])
        expected = hidden @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"]
        np.testing.assert_allclose(logits, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(("bottleneck", "stride"), [(False, 1), (False, 2), (True, 2)])
def test_a_block_equals_a_slow_forward_pass(bottleneck, stride, train):
    block = Block(3, stride, bottleneck, 1.0, "softplus", 5.0, dtype=None)
    rng = np.random.default_rng(0)
    x = rng.random((4, 6, 5, 4))
    variables = float64(jax.jit(partial(block.init, train=False))(jax.random.key(0), jnp.asarray(x, jnp.float32)))
    # Statistics and affine maps that are not those of a fresh network.
    variables = jax.tree.map(lambda leaf: leaf + rng.random(leaf.shape) / 4, variables)
    out, updated = jax.jit(partial(block.apply, train=train, mutable=["batch_stats"]))(variables, jnp.asarray(x))
    params, stats = (jax.tree.map(np.asarray, variables[name]) for name in ("params", "batch_stats"))
    moved = {}

    def layer(index, x, stride, padding):
        x = np.stack([convolve(image, params[f"Conv_{index}"]["kernel"], stride, padding) for image in x])
        name = f"BatchNorm_{index}"
        mean, var = (x.mean((0, 1, 2)), x.var((0, 1, 2))) if train else (stats[name]["mean"], stats[name]["var"])
        moved[name] = {"mean": mean, "var": x.var((0, 1, 2), ddof=1)}
        return (x - mean) / np.sqrt(var + 1e-5) * params[name]["scale"] + params[name]["bias"]

    def softplus(values):
        return np.logaddexp(0, 5 * values) / 5

    hidden = softplus(layer(0, x, 1 if bottleneck else stride, 0 if bottleneck else 1))
    hidden = layer(1, hidden, stride if bottleneck else 1, 1)
    if bottleneck:
        hidden = layer(2, softplus(hidden), 1, 0)
    last = 3 if bottleneck else 2
    shortcut = layer(last, x, stride, 0) if f"Conv_{last}" in params else x
    np.testing.assert_allclose(out, softplus(hidden + shortcut), rtol=1e-9, atol=1e-11)
    for name, values in moved.items():
        for statistic, new in values.items():
            expected = 0.9 * stats[name][statistic] + 0.1 * new if train else stats[name][statistic]
            np.testing.assert_allclose(updated["batch_stats"][name][statistic], expected, rtol=1e-9)


def test_max_pool_equals_flax_and_so_does_its_gradient():
    x = jax.random.normal(jax.random.key(0), (2, 7, 6, 3))
    weight = jax.random.normal(jax.random.key(1), (2, 3, 3, 3))
    pools = (max_pool, lambda x: nn.max_pool(x, (2, 2), strides=(2, 2)))
    values = [pool(x) for pool in pools]
    gradients = [jax.grad(lambda x, pool=pool: jnp.sum(weight * pool(x)))(x) for pool in pools]
    np.testing.assert_array_equal(*values)
    np.testing.assert_array_equal(*gradients)


@pytest.mark.parametrize("name", ["lenet", pytest.param("vgg11", marks=pytest.mark.slow), "resnet"])
def test_examples_do_not_see_each_other_in_evaluation(name):
    resnet = models.ResNet(classes=4, blocks=(1, 1), width=0.25)
    model = resnet if name == "resnet" else models.create(name, classes=4, width=0.25)
    x = jnp.asarray(np.random.default_rng(0).uniform(size=(3, 32, 32, 1)))
    apply_fn = jax.jit(models.evaluator(model, float64(drawn_like(model.init, x.astype(np.float32)))))
    alone = np.concatenate([apply_fn(x[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(apply_fn(x), alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("offset", [0, 3, 30])
def test_batch_normalisation_keeps_the_digits_of_a_small_variance(offset):
    """In float32: E[x^2] - E[x]^2 would be wrong by 2 % of a standard deviation at an offset of 30."""
    x = (offset + np.random.default_rng(0).normal(size=(64, 32, 32, 3))).astype(np.float32)
    norm = BatchNorm(use_running_average=False)
    variables = norm.init(jax.random.key(0), jnp.asarray(x))
    found, moved = jax.jit(partial(norm.apply, mutable=["batch_stats"]))(variables, x)
    exact = x.astype(np.float64)
    mean, var = exact.mean((0, 1, 2)), exact.var((0, 1, 2), ddof=1)
    np.testing.assert_allclose(found, (exact - mean) / np.sqrt(exact.var((0, 1, 2)) + 1e-5), rtol=0, atol=5e-4)
    np.testing.assert_allclose(moved["batch_stats"]["var"], 0.9 + 0.1 * var, rtol=1e-5)


def test_width_multiplies_channels():
    def count(name, shape):
        model = models.create(name, classes=10, width=0.5)
        return models.count_parameters(
            jax.eval_shape(lambda key: models.init(model, jnp.zeros((1, *shape)), key=key), jax.random.key(0))
        )

    assert count("lenet", (28, 28, 1)) == (9 + 1) * 16 + (9 * 16 + 1) * 32 + (12 * 12 * 32 + 1) * 64 + 65 * 10
    stages = (3, 32, 64, 128, 128, 256, 256, 256, 256)
    convolutions = sum((9 * a + 3) * b for a, b in pairwise(stages))
    assert count("vgg11", (32, 32, 3)) == convolutions + 257 * 10


def test_eager_calls_and_fresh_variables_compile_once(caplog):
    model, x = models.create("lenet", classes=3, width=0.1), jnp.ones((2, 9, 9, 1), jnp.float32)
    with jax.log_compiles():
        for compiles in (True, False):
            caplog.clear()
            models.evaluator(model, models.init(model, x, key=jax.random.key(0)))(x)
            assert any("Compiling" in record.getMessage() for record in caplog.records) == compiles


@pytest.mark.slow
def test_p11_every_pixel_of_an_oblong_image_counts():
    """P11: the reference leaves out the lowest rows of 56 x 28 images."""
    model = models.ResNet(classes=2, blocks=(1, 1, 1, 1), width=0.25, activation="softplus")
    x = jax.random.uniform(jax.random.key(0), (1, 56, 28, 1))
    apply_fn = models.evaluator(model, float64(drawn_like(model.init, x.astype(np.float32))))
    gradient = np.asarray(jax.jit(jax.grad(lambda x: apply_fn(x).sum()))(x))[0, :, :, 0]
    assert (np.abs(gradient) > 0).all()
    rows = np.abs(gradient).sum(axis=1)
    assert rows[-4:].mean() > 0.2 * rows.mean()


@pytest.mark.parametrize("bottleneck", [False, True])
def test_p12_a_softplus_block_ends_in_a_softplus(bottleneck):
    """P12: a rectifier at its end would make zeros, and a network that is not smooth."""
    x = jax.random.normal(jax.random.key(0), (4, 6, 6, 8), jnp.float32)
    outputs = {}
    for activation in ("relu", "softplus"):
        block = Block(2 if bottleneck else 8, 1, bottleneck, 1.0, activation, 5.0, dtype=None)
        variables = jax.jit(partial(block.init, train=False))(jax.random.key(1), x)
        outputs[activation] = jax.jit(partial(block.apply, train=False))(variables, x)
    assert (outputs["relu"] == 0).any()
    assert (outputs["softplus"] > 0).all()


def test_bfloat16_computes_in_bfloat16_and_answers_in_float32():
    x = jax.random.uniform(jax.random.key(0), (4, 8, 8, 3), jnp.float32)
    exact, rounded = (models.ResNet(classes=10, blocks=(1, 1), dtype=dtype) for dtype in (None, jnp.bfloat16))
    variables = drawn_like(rounded.init, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    # As scripts compile: by itself jaxlib 0.12 makes NaN of it on CPUs, in YNNPACK's fusions.
    a, b = (compiling.applied(models.evaluator(model, variables), x) for model in (exact, rounded))
    assert a.dtype == b.dtype == jnp.float32
    assert 0 < float(jnp.max(jnp.abs(a - b))) < 0.05 * float(jnp.max(jnp.abs(a)))


def test_weights_are_drawn_as_pytorch_draws_them():
    model = models.ResNet(classes=10, blocks=(1, 1), stages=(64, 512))
    variables = models.init(model, jnp.zeros((1, 8, 8, 3)), key=jax.random.key(0))
    for layer, fan_in in (("Conv_0", 27), ("Dense_0", 512)):
        kernel = np.asarray(variables["params"][layer]["kernel"])
        bound = 1 / np.sqrt(fan_in)
        assert 0.98 * bound < np.abs(kernel).max() <= bound
        assert kernel.std() == pytest.approx(bound / np.sqrt(3), rel=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "alexnet"}, "unknown model 'alexnet'; known: lenet, resnet14, resnet18"),
        ({"classes": 1}, "`classes` must be at least 2, got 1"),
        ({"activation": "tanh"}, "unknown activation 'tanh'; known: relu, softplus"),
        ({"beta": 0.0}, "`beta` must be finite and above 0, got 0"),
        ({"stem": 5}, "`stem` must be 2, 3 or 7, got 5"),
        ({"name": "lenet", "stem": 7}, "`stem` is a choice of residual networks, not of 'lenet'"),
    ],
)
def test_bad_models_are_refused(options, message):
    options = {"name": "resnet18", "classes": 10, **options}
    with pytest.raises(ValueError, match=message):
        models.create(options.pop("name"), **options)


SMALLEST = {"lenet": 6, "vgg11": 32}


@pytest.mark.parametrize(
    ("model", "smallest"),
    [
        *(
            (models.create(name, classes=2, width=0.05), {"lenet": 6, "vgg11": 32}.get(name, 1))
            for name in models.NAMES
        ),
        (models.create("resnet18", classes=2, width=0.05, stem=7), 1),
        (models.VGG(2, stages=((8,),)), 2),
        (models.UNet(), 1),
    ],
)
def test_images_too_small_for_a_model_are_refused(model, smallest):
    """One pixel less would leave maps of no size; the smallest images do not."""

    def outputs(height, width):
        return jax.eval_shape(
            lambda x: model.init_with_output(jax.random.key(0), x)[0], jnp.ones((2, height, width, 1), jnp.float32)
        )

    for height, width in ((smallest, smallest), (smallest, smallest + 3)):
        assert 0 not in outputs(height, width).shape
    for height, width in ((smallest - 1, smallest), (smallest, smallest - 1)):
        said = "is for images" if smallest == 1 else f"at least {smallest} x {smallest} pixels, got {height} x {width}"
        with pytest.raises(ValueError, match=said):
            outputs(height, width)


def test_variables_of_a_resnet_are_the_same_from_images_of_any_size():
    """A block of stride 2 convolves beside maps of one pixel too, which it does not shrink, of as many channels."""
    model = models.ResNet(classes=2, blocks=(1, 1), width=0.125, stages=(8, 8))
    sizes = [
        jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32))
        for size in (1, 2, 8)
    ]
    assert {"Conv_2", "BatchNorm_2"} <= sizes[0]["params"]["Block_1"].keys()
    assert sizes[0] == sizes[1] == sizes[2]


def test_what_is_no_batch_of_float_images_is_refused():
    """Annotations are checked in tests only."""
    with pytest.raises(ValueError, match=r"LeNet is for images \(n, height, width, channels\), .* \(2, 32, 32\)"):
        layers.check_input(jnp.ones((2, 32, 32)), 6, "LeNet")
    with pytest.raises(ValueError, match=r"LeNet is for floats in \[0, 1\], got uint8; see images\.to_float"):
        layers.check_input(jnp.ones((2, 32, 32, 1), jnp.uint8), 6, "LeNet")


def test_statistics_of_one_value_are_refused():
    """As PyTorch does: its variance is zero, and the output its bias, whatever it is."""
    norm = BatchNorm(use_running_average=False)
    x = jnp.array([[[[5.0, 6.0, 7.0]]]])
    variables = norm.init(jax.random.key(0), x)
    with pytest.raises(ValueError, match=r"more than one value a channel, got an input of the shape \(1, 1, 1, 3\)"):
        norm.apply(variables, x, mutable=["batch_stats"])
    two = jnp.concatenate([x, x + 2])
    out, _ = norm.apply(variables, two, mutable=["batch_stats"])
    np.testing.assert_allclose(out[:, 0, 0], np.array([[-1.0], [1.0]]) * np.ones(3), rtol=1e-4)
    running = BatchNorm(use_running_average=True)
    np.testing.assert_allclose(running.apply(variables, x), x, rtol=1e-4)


def test_features_are_what_the_last_dense_layer_is_given():
    net = models.create("resnet14", classes=3, width=1 / 16, stem=2)
    x = jax.random.uniform(jax.random.key(1), (4, 8, 8, 3), jnp.float32)
    variables = drawn_like(net.init, x)
    found, last = jax.jit(partial(models.features, net))(variables, x), variables["params"]["Dense_0"]
    np.testing.assert_allclose(found @ last["kernel"] + last["bias"][None], jax.jit(net.apply)(variables, x), rtol=1e-5)
    with pytest.raises(ValueError, match=r"Sequential calls no nn\.Dense"):
        models.features(nn.Sequential([nn.relu]), {}, x)
