"""Small policies, loaded once a process; a test that changes weights makes its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_models
from transformers.utils import logging


@pytest.fixture(scope="session", autouse=True)
def _quiet() -> None:
    logging.disable_progress_bar()


@pytest.fixture(scope="session")
def qwen_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save_model(tmp_path_factory.mktemp("models") / "qwen")
