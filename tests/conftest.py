import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

# Every deprecated call is told, and not only the first of a process.
os.environ["JSONARGPARSE_DEPRECATION_WARNINGS"] = "all"

# No test may fail because the machine is slow.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def indexes_elsewhere(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Indexes of annotation files lie beside them; the shared samples are not ours to write beside."""
    monkeypatch.setenv("MASKSELECT_INDEX", str(tmp_path_factory.getbasetemp() / "indexes"))


@pytest.fixture
def shared_data() -> Path:
    """Folder of real samples of public data sets; skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is absent: real samples are not part of the repository")
    return SHARED


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The file of a plain picture of 40 x 32 pixels."""
    path = tmp_path / "cup.jpg"
    Image.new("RGB", (40, 32), "teal").save(path)
    return path
