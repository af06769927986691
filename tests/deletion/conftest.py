"""A trained store, made once, and a fresh copy of it for each test."""

import shutil

import pytest

from tests.deletion import tables


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "model"
    tables.make_store(folder, sigma=4.0)  # Enough that a few deletions are streamed.
    return folder


@pytest.fixture
def store(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "model")
