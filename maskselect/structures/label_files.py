"""Masks as other programs store them: polygons of COCO, files of labelme, lines of YOLO, and SVG.

Corners are on the edges of pixels, see `maskselect.ops.outlines`.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from maskselect.ops.drawing import colour_of
from maskselect.ops.outlines import joined, outlines

Labelled = tuple[np.ndarray, str, float]
"""A mask (H, W) bool, its label, and its score in [0, 1]."""

TOLERANCE = 0.5
"""Default tolerance of labelme's polygons in pixels, so that a person can edit them."""

_LABELME = "5.5.0"  # the version whose fields are written


def coco_polygons(mask: np.ndarray, tolerance: float = 0.0) -> list[list[float]]:
    """One polygon x, y, x, y, … for each part of a mask; holes are joined to it by cuts, see `ops.outlines.joined`."""
    return [[float(value) for value in joined(part).ravel()] for part in outlines(mask, tolerance)]


def labelme_record(
    objects: Iterable[Labelled], size: tuple[int, int], image: str | None, tolerance: float = TOLERANCE
) -> dict[str, Any]:
    """The content of a label file of labelme. The parts of one mask are shapes with one `group_id`.

    Args:
        objects: the masks.
        size: (H, W) of the image.
        image: path of the image, relative to the label file.
        tolerance: in pixels, see `ops.outlines.outlines`.
    """
    shapes = []
    for number, (mask, label, score) in enumerate(objects):
        parts = [joined(part) for part in outlines(mask, tolerance)]
        for part in parts:
            shape = {
                "label": label,
                "points": part.astype(float).tolist(),
                "group_id": number if len(parts) > 1 else None,
                "description": "",
                "shape_type": "polygon",
                "flags": {},
                "score": round(score, 6),
            }
            shapes.append(shape)
    return {
        "version": _LABELME,
        "flags": {},
        "shapes": shapes,
        "imagePath": image,
        "imageData": None,
        "imageHeight": size[0],
        "imageWidth": size[1],
    }


def yolo_lines(
    objects: Iterable[Labelled], classes: Sequence[str], size: tuple[int, int], tolerance: float = 0.0
) -> str:
    """The content of a YOLO segmentation label: a line for each mask, its class and the outline in fractions.

    A line has one outline, so that all parts and holes of a mask are joined by cuts. A mask without pixels has no line.

    Raises:
        ValueError: a label is not among the classes.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    lines = []
    for mask, label, _ in objects:
        if label not in numbers:
            raise ValueError(f"label {label!r} is not among the {len(numbers)} classes; expected one of them")
        rings = [ring for part in outlines(mask, tolerance) for ring in part]
        if rings:
            corners = joined(rings) / [size[1], size[0]]
            lines.append(" ".join([str(numbers[label]), *(f"{value:.7g}" for value in corners.ravel())]))
    return "".join(f"{line}\n" for line in lines)


def svg_text(objects: Iterable[Labelled], size: tuple[int, int], title: str) -> str:
    """An SVG of the image's size: a path for each mask, filled by the even-odd rule, so that holes stay open.

    Each path has the attributes `data-label` and `data-score`, and a title that browsers show under the pointer.
    """
    from xml.etree import ElementTree  # noqa: PLC0415  only this format needs it

    height, width = size
    frame = {"xmlns": "http://www.w3.org/2000/svg", "width": str(width), "height": str(height)}
    root = ElementTree.Element("svg", frame | {"viewBox": f"0 0 {width} {height}"})
    ElementTree.SubElement(root, "title").text = title
    group = ElementTree.SubElement(root, "g", {"fill-rule": "evenodd", "fill-opacity": "0.5"})
    for number, (mask, label, score) in enumerate(objects):
        drawn = "".join(_path(ring) for part in outlines(mask) for ring in part)
        fill = "#{:02x}{:02x}{:02x}".format(*colour_of(number))
        known = {"d": drawn, "fill": fill, "data-label": label, "data-score": f"{score:.4f}"}
        path = ElementTree.SubElement(group, "path", known)
        ElementTree.SubElement(path, "title").text = f"{label} {score:.2f}"
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _path(ring: np.ndarray) -> str:
    """A ring of horizontal and vertical edges: `M1 2H4V5H1Z`."""
    (x, y), *rest = ring.tolist()
    edges, at = [f"M{x} {y}"], (x, y)
    for corner in rest:
        edges.append(f"H{corner[0]}" if corner[1] == at[1] else f"V{corner[1]}")
        at = corner
    return "".join([*edges, "Z"])
