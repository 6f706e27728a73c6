"""What the tests of the command line stand on: a folder, and no GPU."""

from pathlib import Path

import pytest

from gpugrad import dispatch


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GPUGRAD_DEVICE", raising=False)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "gpu_missing", lambda: "there is no NVIDIA driver")
