"""The folder of models that a small zoo of RobustBench's layout keeps."""

import pytest


@pytest.fixture
def models(tmp_path):
    return tmp_path / "models"
