"""Kernels lower for TPUs and GPUs, and compile for them where their compilers are installed (extra ``aot``)."""

import json
import math
import os
import subprocess
import sys

import jax
import jax.export
import jax.numpy as jnp
import pytest

from benchmarks import formulas, hlo, kernels, kernels_fmu, kernels_pags

KERNELS = {kernel.name: kernel for kernel in (*kernels_fmu.KERNELS, *kernels_pags.KERNELS)}
#: Quick to trace; the others are as slow as their networks are deep.
QUICK = ("group_metrics", "remove fair_newton", "remove projective", "local_pca", "training step lenet, cross_entropy")


#: XLA's own note of how an array is to be laid (`fmu_jax.row_blocks`): no library, and gone once compiled.
LAYOUT = jax.export.DisabledSafetyCheck.custom_call("LayoutConstraint")


def check_exports(name):
    """Lowers for both platforms. A call of a library that the platform lacks is refused by ``export`` itself."""
    with jax.enable_x64(False):
        function, arguments = KERNELS[name].make(kernels.Place())
        lower = jax.export.export(jax.jit(function), platforms=["tpu", "cuda"], disabled_checks=[LAYOUT])
        exported = lower(*arguments)
    assert exported.platforms == ("tpu", "cuda")
    text = exported.mlir_module()
    assert "f64" not in text.replace("0xf64", "")
    assert "callback" not in text


@pytest.mark.parametrize("name", QUICK)
def test_quick_kernels_lower_for_tpus_and_gpus(name):
    check_exports(name)


@pytest.mark.weekly
@pytest.mark.parametrize("name", [name for name in KERNELS if name not in QUICK])
def test_every_kernel_lowers_for_tpus_and_gpus(name):
    check_exports(name)


def test_an_unlucky_kernel_does_not_pass():
    """A host callback is seen, so that the check above can fail."""

    def ask(x):
        return jax.pure_callback(lambda x: x, x, x, vmap_method="sequential")

    KERNELS["loud"] = kernels.Kernel("loud", "", lambda place: (ask, (place.rows((2,)),)))
    try:
        with pytest.raises((AssertionError, NotImplementedError, ValueError)):
            check_exports("loud")
    finally:
        del KERNELS["loud"]


PROGRAM = """
%body (p: (s32[], f32[8,3])) -> (s32[], f32[8,3]) {
  %g = f32[3]{0} all-reduce(%x), to_apply=%add
}
ENTRY %main (p: f32[8,3]) -> f32[8,3] {
  %w = (s32[], f32[8,3]) while(%t), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"7"}}
  %s = (f32[4]{0}, f32[8]{0}) all-gather-start(%q), dimensions={0}
  %wide = f32[100,64]{1,0:T(8,128)} copy(%z)
  %call = f32[2]{0} custom-call(%wide), custom_call_target="xla_ffi_python_gpu_callback"
}
"""


def test_collectives_in_loops_count_as_often_as_they_run():
    assert hlo.collectives(PROGRAM) == (8, 7 * 12 + 32)


def test_padding_and_what_a_target_may_lack_are_read_off_a_program():
    assert hlo.worst_padding(PROGRAM)["padded_mb"] == round((104 * 128 - 6400) * 4 / 1e6, 3)
    assert hlo.refused(PROGRAM)["host"] == ["xla_ffi_python_gpu_callback"]
    assert not hlo.refused(PROGRAM)["float64"]
    assert hlo.refused(PROGRAM + "  %d = f64[] constant(0)")["float64"]


def test_arithmetic_counts_scans_branches_and_our_convolutions():
    x = jnp.ones((4, 4), jnp.float32)

    def scanned(x):
        return jax.lax.fori_loop(0, 5, lambda _, y: y @ y, x)

    assert hlo.flops(jax.make_jaxpr(scanned)(x)) == 5 * 2 * 64
    branches = jax.make_jaxpr(lambda x: jax.lax.cond(x[0, 0] > 0, lambda: x @ x, lambda: x))(x)
    assert hlo.flops(branches) == 2 * 64
    from pags_jax.convolution import convolve

    images, kernel = jnp.ones((2, 8, 8, 3), jnp.float32), jnp.ones((3, 3, 3, 5), jnp.float32)
    once = 2 * math.prod((2, 8, 8, 5)) * 27
    assert hlo.flops(jax.make_jaxpr(convolve)(images, kernel)) == once
    both = jax.make_jaxpr(jax.grad(lambda x, k: convolve(x, k).sum(), (0, 1)))(images, kernel)
    assert hlo.flops(both) == 3 * once or hlo.flops(both) == 2 * once


def test_forward_passes_are_those_counted_by_hand():
    """Of one image: each layer's outputs, times what a sum runs over, times two."""
    lenet = 26**2 * 32 * 9 + 24**2 * 64 * 9 * 32 + 128 * 64 * 12**2 + 10 * 128
    stages = ((16, 64, 128), (8, 128, 256), (4, 256, 512))
    resnet = 32**2 * 64 * 27 + 4 * 32**2 * 64 * 9 * 64 + 10 * 512
    resnet += sum(side**2 * wide * (9 * narrow + 3 * 9 * wide + narrow) for side, narrow, wide in stages)
    with jax.enable_x64(False):
        assert formulas.forward("lenet") == 2 * kernels_pags.IMAGES * lenet
        assert formulas.forward("resnet18") == 2 * kernels_pags.IMAGES * resnet
        of_rows = 7**2 * 4 * 9 + 4**2 * 8 * 9 * 4 + 128 * 128 + 128
        assert formulas.forward("lenet of rows") == 2 * of_rows


#: They compare and sort; two of them also fit their regions, by 0.03 Gflop.
WITHOUT = {"empirical_epsilon", "empirical_mu", "relative_test", "lira", "klom"}
TRACED = ("remove scrub, LeNet", "remove fair_newton", "input_gradients lenet, loss", "lpips", "nearest")


def check_arithmetic(name):
    with jax.enable_x64(False):
        counted = hlo.flops(kernels.traced(KERNELS[name], kernels.Place()).jaxpr)
        over = formulas.share(name, counted)["of_formula"]
    assert 0.8 <= over <= (2 if name in formulas.WHY else 1.5), over


@pytest.mark.parametrize("name", TRACED)
def test_programs_have_little_more_arithmetic_than_formulas(name):
    check_arithmetic(name)


@pytest.mark.weekly
@pytest.mark.parametrize("name", [name for name in KERNELS if name not in (*TRACED, *WITHOUT)])
def test_every_program_has_little_more_arithmetic_than_its_formula(name):
    check_arithmetic(name)


def test_every_kernel_has_a_formula():
    assert formulas.FORMULAS.keys() == KERNELS.keys() - WITHOUT


def test_rows_without_a_formula_are_filled_from_what_was_counted():
    row = {"kernel": "group_metrics", "program_gflop": 2 * formulas.FORMULAS["group_metrics"] / 1e9, "of_formula": 0.0}
    assert formulas.filled(row)["of_formula"] == 2
    assert formulas.filled({"kernel": "lira", "compiles": False}) == {"kernel": "lira", "compiles": False}


CASES = """
import json
from benchmarks import compiled
print(json.dumps([compiled.case(name, target) for name, target in json.loads({cases!r})]))
"""


def compiled_rows(*cases):
    """Rows of a process of its own, which has no device but the CPU."""
    pytest.importorskip("libtpu", reason="the extra aot is not installed")
    pytest.importorskip("jax_cuda12_plugin", reason="the extra aot is not installed")
    script = CASES.format(cases=json.dumps(cases))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": "0", "XLA_FLAGS": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


WHOLE = ("moments", "fit", "retrained_region", "certify")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "names"),
    [
        ("1 x H200", ("remove fair_newton", *WHOLE)),
        ("v5e-16", ("remove fair_newton", "group_metrics")),
        ("v5e-16", ("stream delete", "fit_thresholds", "moments, 128 columns")),
        ("v5e-16", WHOLE),
        pytest.param("v5e-16", ("stream serve", "stream serve_releases"), marks=pytest.mark.weekly),
    ],
)
def test_many_rows_fit_beside_what_is_computed_of_them(target, names):
    """10^8 rows of 64 columns: arguments and temporaries take at most 1.5 times the rows."""
    for row in compiled_rows(*((name, target) for name in names)):
        assert row["compiles"], row
        assert row["of_arguments"] <= 1.5, row
        assert row["argument_gb"] + row["temporary_gb"] + row["output_gb"] < row["chip_gb"]
        assert not row["float64"]
        assert not row["host"]


@pytest.mark.slow
def test_training_and_gradients_compile_for_a_tpu_and_a_gpu():
    names = ("training step lenet, gradient_norm", "lpips")
    for row in compiled_rows(*((name, target) for name in names for target in ("1 x H200", "v5e-16"))):
        assert row["compiles"], row
        assert not row["float64"]
        assert not row["host"]
