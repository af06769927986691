"""`import pags_jax` is cheap, and gives every module by dots."""

import importlib
import subprocess
import sys

import pytest

import pags_jax


def test_the_package_alone_imports_no_jax():
    code = "import sys, pags_jax; print('jax' in sys.modules, 'numpy' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["False", "False"]


@pytest.mark.parametrize("name", pags_jax.__all__)
def test_modules_by_dots(name):
    assert getattr(pags_jax, name) is importlib.import_module(f"pags_jax.{name}")
    assert name in dir(pags_jax)


def test_an_unknown_name_is_no_module():
    with pytest.raises(AttributeError, match="has no attribute 'gradient'"):
        _ = pags_jax.gradient
