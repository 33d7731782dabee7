"""Downloads: groups as the page shows them, in the formats of `predict`."""

import io
import re
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from maskselect.exports import DATA_SETS, data_sets
from maskselect.ops.images import working_size
from maskselect.predictor import Model
from maskselect.reports.files import SUFFIXES, write_answers
from maskselect.serving.pictures import Kept
from maskselect.serving.settings import Refusal, bad_input
from maskselect.serving.wire import FilesIn, GroupIn
from maskselect.structures.packed_masks import PackedMasks
from maskselect.structures.prediction import MaskGroup
from maskselect.structures.references import MaskRef

TYPES = {".json": "application/json", ".png": "image/png", ".svg": "image/svg+xml", ".mp4": "video/mp4"}
"""Media types of single files; everything else is a zip."""


def safe_stem(name: str) -> str:
    """A file name without folder, suffix and unusual characters.

    >>> safe_stem("../../etc/my photo.jpg"), safe_stem(".."), safe_stem("")
    ('my_photo', 'picture', 'picture')
    """
    base = re.split(r"[/\\\\]", name)[-1]
    stem = re.sub(r"[^\w-]+", "_", Path(base).stem).strip("_.")[:80]
    return stem or "picture"


def group_of(wanted: GroupIn, kept: Kept, model: Model, with_references: bool) -> MaskGroup:
    """The group of a request, equal to that of `Model.select` if nobody changed its masks.

    Args:
        wanted: the request.
        kept: the picture.
        model: finds the masks of boxes and points.
        with_references: whether the group gets its reference masks, which only the overlay shows.

    Raises:
        Refusal: a mask is unusable, or a candidate does not exist.
    """
    picture = kept.picture
    size, working = picture.size, working_size(picture.size)
    masks = np.zeros((len(wanted.masks), *working), bool)
    order = sorted(range(len(wanted.masks)), key=lambda number: -wanted.masks[number].score)
    for place, number in enumerate(order):
        chosen = wanted.masks[number]
        if chosen.mask is not None:
            masks[place] = chosen.mask.decode(working)
        else:
            pool, candidate = picture.pool, chosen.candidate or 0
            if pool is None or not 0 <= candidate < len(pool):
                raise Refusal(400, "bad_input", f"candidate {candidate} does not exist")
            masks[place] = pool.masks[candidate].cpu().numpy()
    references = [one.resolve(size, working, picture.pool) for one in wanted.references] if with_references else []
    drawn = [one.mask for one in references if isinstance(one, MaskRef)]
    if len(drawn) < len(references):
        try:
            found = model.reference_masks(picture, references).cpu().numpy()
        except ValueError as error:
            raise bad_input(error) from error
        drawn = list(PackedMasks(found, size))
    return MaskGroup(
        image=picture.pixels,
        prompt=wanted.text,
        masks=PackedMasks(masks, size),
        scores=np.array([wanted.masks[number].score for number in order], np.float32),
        candidates=wanted.candidates,
        threshold=wanted.threshold,
        references=np.stack(drawn) if drawn else np.zeros((0, *size), bool),
        text=wanted.answer,
        refiner=None if model.refiner is None else model.refiner.name,
        parts=model.parts,
    )


def write_groups(wanted: FilesIn, kept: Kept, model: Model, name: str) -> tuple[str, str, bytes]:
    """The file of a download.

    Args:
        wanted: groups and format.
        kept: their picture.
        model: the model.
        name: of the picture on the user's machine.

    Returns:
        File name, media type and content. Several files, and data sets, are a zip.

    Raises:
        Refusal: as `group_of`.
    """
    groups = [group_of(one, kept, model, wanted.format == "overlay") for one in wanted.groups]
    stem = safe_stem(name)
    with tempfile.TemporaryDirectory(prefix="maskselect-") as folder:
        root = Path(folder)
        if wanted.format in DATA_SETS:
            image = root / f"{stem}{kept.suffix}"
            image.write_bytes(kept.content)
            output = root / "output"
            with data_sets((wanted.format,), output) as exported:
                for one in exported:
                    one.add(image, groups)
            return f"{stem}.{wanted.format}.zip", "application/zip", zipped(output)
        output = root / "output"
        output.mkdir()
        write_answers(groups, output, Path(f"{stem}{kept.suffix}"), model.name, (wanted.format,))
        files = sorted(output.iterdir())
        if len(files) == 1 and files[0].is_file():
            return files[0].name, TYPES[files[0].suffix], files[0].read_bytes()
        return f"{stem}{SUFFIXES[wanted.format]}.zip", "application/zip", zipped(output)


def zipped(folder: Path) -> bytes:
    """The files below a folder as a zip."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder))
    return content.getvalue()
