import doctest
import importlib

import pytest

MODULES = ("boundary", "canvas", "davis", "functional", "mask_box", "protocols", "referring", "video")


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_the_docstrings_hold(name: str) -> None:
    results = doctest.testmod(importlib.import_module(f"maskselect.metrics.{name}"))
    assert results.failed == 0
    assert results.attempted > 0
