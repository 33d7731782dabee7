"""No private name of another package: it may change in any of its releases, and has.

What cannot do without one is an adapter: a single file, named in ADAPTERS, with a test that states what it relies on.
"""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator

from lightning.pytorch.callbacks import ModelCheckpoint

from tests.test_house import MODULES, ROOT, SOURCES

ADAPTERS = {
    "maskselect/backends/pickling.py": "tests/backends/test_pickling.py",
    "tools/_write_cli_reference.py": "tests/test_docs.py",  # argparse has no public list of a parser's options
}
"""Files that may use private names of one package each, and the tests that state which and why."""

SEARCHED = [*SOURCES, *sorted((ROOT / "tools").glob("*.py")), *sorted((ROOT / "benchmarks").glob("*.py"))]
OF_NAMED_TUPLES = {"_replace", "_asdict", "_fields", "_make"}
OF_PYTHON = {"_abc_impl", "_is_protocol", "_is_runtime_protocol"}
NOT_OTHERS = {"maskselect", "builtins", "abc", "enum", "typing"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def defined(tree: ast.Module) -> Iterator[str]:
    """Names of functions, classes, variables and attributes of `self` that a file of ours defines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            yield node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


OURS = OF_NAMED_TUPLES | {name for path in SEARCHED for name in defined(ast.parse(path.read_text()))}


def private_uses(source: str, ours: set[str]) -> Iterator[str]:
    """Private names in a source that are not ours: imported, asked for as attributes, or named in a string."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            yield from (
                f"line {node.lineno}: from {node.module} import {alias.name}"
                for alias in node.names
                if (node.module or "").partition(".")[0] not in ("maskselect", "tools", "benchmarks", "__future__")
                and any(map(is_private, [*(node.module or "").split("."), alias.name]))
            )
            if (node.module or "").startswith("transformers.models"):
                yield f"line {node.lineno}: {node.module} is not documented; import from transformers"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if any(map(is_private, alias.name.split("."))) and not (ROOT / "tools" / f"{alias.name}.py").is_file():
                    yield f"line {node.lineno}: import {alias.name}"
        elif isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in ours:
            yield f"line {node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.Constant) and re.fullmatch(r"[A-Za-z]\w*(\.\w+)*\._[A-Za-z][\w.]*", str(node.value)):
            yield f"line {node.lineno}: {node.value!r}"


def test_sources_name_nothing_private_of_others() -> None:
    files = {str(path.relative_to(ROOT)): path.read_text() for path in SEARCHED}
    found = [
        f"{name}, {use}" for name, text in files.items() if name not in ADAPTERS for use in private_uses(text, OURS)
    ]
    assert found == []


def test_private_names_are_found() -> None:
    source = """
import torch._dynamo
from transformers.models.llama.modeling_llama import rotate_half
from lightning.pytorch import _private
network._from_config(config)
metrics._update_count = 1
self._own, super()._own
patch("torch._dynamo.utils")
"""
    found = list(private_uses(source, {"_own"}))
    assert [int(line.split(":")[0].removeprefix("line ")) for line in sorted(found)] == [2, 3, 4, 5, 6, 8]


def overridden(cls: type) -> set[str]:
    """Private names of a class of ours that a class of another package defines too, further up."""
    theirs = [base for base in cls.__mro__[1:] if base.__module__.partition(".")[0] not in NOT_OTHERS]
    return {own for own in vars(cls) if is_private(own) for base in theirs if own in vars(base)} - OF_PYTHON


def test_classes_override_nothing_private_of_others() -> None:
    modules = [importlib.import_module(name) for name in MODULES]
    classes = {cls for module in modules for _, cls in inspect.getmembers(module, inspect.isclass)}
    assert {cls: overridden(cls) for cls in classes if cls.__module__ in MODULES and overridden(cls)} == {}

    class Saves(ModelCheckpoint):
        def _save_checkpoint(self, *_: object) -> None:
            """As it was once done here."""

    assert overridden(Saves) == {"_save_checkpoint"}


def test_adapters_are_there_with_their_tests() -> None:
    for files in ADAPTERS.items():
        assert all((ROOT / file).is_file() for file in files)
