"""Which extra brings a package comes from the metadata of the installed package."""

import pytest

from maskselect.backends.optional import installing, missing_package, require


@pytest.mark.parametrize(("package", "extra"), [("lightning", "train"), ("ijson", "data"), ("sentencepiece", "import")])
def test_a_failed_import_names_the_extra(package: str, extra: str) -> None:
    error = ModuleNotFoundError(f"No module named '{package}.part'", name=f"{package}.part")
    assert missing_package(error) == f"{package} is not installed; get it with: {installing(extra)}"


@pytest.mark.parametrize("name", ["torch", "no_such_package", None])
def test_other_failed_imports_have_no_extra(name: str | None) -> None:
    assert missing_package(ModuleNotFoundError("x", name=name)) is None


def test_require_says_how_to_install() -> None:
    with pytest.raises(ValueError, match=r"no_such_package is not installed; get it with: make setup EXTRAS=ray"):
        require("no_such_package.part", "ray")
    with pytest.raises(ModuleNotFoundError):
        require("json.no_such_part", "ray")
