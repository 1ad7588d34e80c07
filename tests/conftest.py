"""Settings and data that every test may use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

# Kernels compile inside examples, so no example has a deadline; a fixed seed keeps a failing run repeatable.
hypothesis.settings.register_profile("fastloss", deadline=None, derandomize=True, max_examples=60)
hypothesis.settings.load_profile("fastloss")

Run = Callable[..., tuple[int, str, str]]

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real and golden data beside the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the data folder ../shared/data is not here")
    return SHARED_DATA


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process; return its status, stdout and stderr."""

    from fastloss.cli import main

    def run_words(*words: object) -> tuple[int, str, str]:
        status = main([str(word) for word in words])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run_words


@pytest.fixture
def fails(run: Run) -> Callable[..., str]:
    """Run a command line that must fail: status 2, nothing on stdout, one line on stderr, which is returned."""

    def run_words(*words: object) -> str:
        status, out, err = run(*words)
        assert (status, out) == (2, "")
        assert err.startswith("fastloss: ")
        assert err.count("\n") == 1
        assert "Traceback" not in err
        return err

    return run_words
