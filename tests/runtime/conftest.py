"""A tiny package to read, and what one is written from."""

import pytest
import tiny
from package_edits import make


@pytest.fixture
def package(tmp_path):
    return make(tmp_path / "package")


@pytest.fixture
def content():
    config = tiny.egru_config("int8", True, False, 9, (5, 4), 4)
    return config, tiny.egru_tensors(config)
