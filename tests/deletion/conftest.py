"""Stores made once, and a fresh copy of one for each test."""

import shutil

import pytest

from fmu_jax.deletion import requests
from tests.deletion import tables


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "model"
    tables.make_store(folder)
    return folder


@pytest.fixture(scope="session")
def served(trained, tmp_path_factory):
    """After two requests; the second one's people were partly held out."""
    folder = shutil.copytree(trained, tmp_path_factory.mktemp("served") / "model")
    requests.delete(folder, ["0001", "0002"])
    requests.delete(folder, ["0003"])
    return folder


@pytest.fixture
def store(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "model")


@pytest.fixture
def used(served, tmp_path):
    return shutil.copytree(served, tmp_path / "model")
