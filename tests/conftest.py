"""Settings and data that every test may use."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import pytest

# Kernels compile inside examples, so no example has a deadline; a fixed seed keeps a failing run repeatable.
hypothesis.settings.register_profile("fastloss", deadline=None, derandomize=True, max_examples=60)
hypothesis.settings.load_profile("fastloss")

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real and golden data beside the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the data folder ../shared/data is not here")
    return SHARED_DATA
