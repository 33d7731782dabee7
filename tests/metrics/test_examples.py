import doctest
import importlib

import pytest

MODULES = (
    "boundary",
    "canvas",
    "davis",
    "functional",
    "mask_box",
    "protocols",
    "referring",
    "rules",
    "video",
    "video_protocols",
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_the_docstrings_hold(name: str) -> None:
    """The module's own example first: those of its classes go on from there."""
    module = importlib.import_module(f"maskselect.metrics.{name}")
    shared = dict(vars(module))
    runner = doctest.DocTestRunner()
    examples = sorted(doctest.DocTestFinder().find(module), key=lambda test: test.lineno or 0)
    for example in examples:
        example.globs = shared
        runner.run(example, clear_globs=False)
    assert runner.failures == 0
    assert runner.tries > 0


def test_every_protocol_has_an_example() -> None:
    from maskselect.metrics.protocols import PROTOCOLS
    from maskselect.metrics.video_protocols import VIDEO_PROTOCOLS

    for protocol in (*PROTOCOLS.values(), *VIDEO_PROTOCOLS.values()):
        own = type(protocol).__doc__ or ""
        assert ">>>" in own or protocol.name == "maskselect", protocol.name  # whose example opens the module
