"""The call of `predict` that its tests make."""

from maskselect import cli


def predict(*options: object) -> int:
    """The exit status of `maskselect predict`."""
    return cli.main(["predict", *map(str, options)], prog="maskselect")
