import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskselect.data.images import (
    DarkImageWarning,
    collect_images,
    image_size,
    list_images,
    load_image,
    load_mask,
    parse_reference,
)
from maskselect.structures.references import BoxRef, MaskRef, PointRef


@pytest.fixture
def pixels() -> np.ndarray:
    """Smooth, so that lossy files stay close; all four corners differ."""
    y, x = np.mgrid[:24, :36]
    return np.stack([x * 7, y * 10, 255 - x * 3 - y * 3], 2).astype(np.uint8)


def close(got: np.ndarray, expected: np.ndarray, tolerance: float = 0) -> bool:
    assert got.dtype == np.uint8
    assert got.shape == expected.shape
    assert got.flags.writeable
    return bool(np.abs(got.astype(int) - expected.astype(int)).max() <= tolerance)


# What must work.
@pytest.mark.parametrize(
    ("name", "tolerance"), [("a.png", 0), ("a.bmp", 0), ("a.tif", 0), ("a.webp", 40), ("a.jpg", 40)]
)
def test_plain_files(tmp_path: Path, pixels: np.ndarray, name: str, tolerance: float) -> None:
    Image.fromarray(pixels).save(tmp_path / name)
    assert close(load_image(tmp_path / name), pixels, tolerance)
    assert close(load_image(str(tmp_path / name)), pixels, tolerance)
    assert image_size(tmp_path / name) == (24, 36)


def test_arrays_and_pil_images_pass_through(pixels: np.ndarray) -> None:
    assert close(load_image(pixels), pixels)
    assert close(load_image(Image.fromarray(pixels)), pixels)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_span_the_whole_range(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 128, 257, 32768, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    got = load_image(tmp_path / f"a.{suffix}")
    assert got[0, :, 0].tolist() == [0, 0, 1, 128, 255]
    assert (got == got[..., :1]).all()


def test_a_dark_sixteen_bit_picture_stays_dark(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 2570, np.uint16)).save(tmp_path / "a.png")
    assert (load_image(tmp_path / "a.png") == 10).all()


def test_sixteen_bit_colour(tmp_path: Path) -> None:
    rows = b"".join(b"\0" + struct.pack(">6H", 65535, 0, 32896, 257, 514, 65535) for _ in range(2))
    (tmp_path / "a.png").write_bytes(png(2, 2, 16, 2, rows))
    assert load_image(tmp_path / "a.png")[0].tolist() == [[255, 0, 128], [1, 2, 255]]


def test_integers_and_floats(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 65535]], np.int32)).save(tmp_path / "i.tif")
    assert load_image(tmp_path / "i.tif")[0, :, 0].tolist() == [0, 255]
    for name, values in {"unit": [0, 0.5, 1], "byte": [0, 127.5, 255]}.items():
        Image.fromarray(np.array([values], np.float32)).save(tmp_path / f"{name}.tif")
        assert load_image(tmp_path / f"{name}.tif")[0, :, 0].tolist() == [0, 128, 255]
    Image.fromarray(np.array([[np.nan, 1.0]], np.float32)).save(tmp_path / "nan.tif")
    assert load_image(tmp_path / "nan.tif")[0, :, 0].tolist() == [0, 255]


def test_grey_and_black_and_white(tmp_path: Path, pixels: np.ndarray) -> None:
    grey = Image.fromarray(pixels[..., 0])
    grey.save(tmp_path / "a.png")
    assert close(load_image(tmp_path / "a.png"), np.repeat(pixels[..., :1], 3, 2))
    grey.convert("1").save(tmp_path / "b.png")
    assert set(np.unique(load_image(tmp_path / "b.png"))) == {0, 255}


def test_transparency_is_laid_on_white(tmp_path: Path, pixels: np.ndarray) -> None:
    rgba = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    rgba[:12, :, 3] = 0
    rgba[12:14, :, 3] = 128
    Image.fromarray(rgba).save(tmp_path / "a.png")
    got = load_image(tmp_path / "a.png")
    assert (got[:12] == 255).all()
    assert close(got[14:], pixels[14:])
    assert close(got[12:14], ((pixels[12:14].astype(int) * 128 + 255 * 127) // 255).astype(np.uint8), 1)
    Image.fromarray(rgba).convert("LA").save(tmp_path / "b.png")
    assert (load_image(tmp_path / "b.png")[:12] == 255).all()


def test_palette_with_and_without_transparency(tmp_path: Path) -> None:
    picture = Image.new("P", (3, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    picture.putdata([0, 1, 2])
    picture.save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png")[0].tolist() == [[10, 20, 30], [40, 50, 60], [70, 80, 90]]
    picture.save(tmp_path / "b.png", transparency=1)
    assert load_image(tmp_path / "b.png")[0].tolist() == [[10, 20, 30], [255, 255, 255], [70, 80, 90]]
    picture.save(tmp_path / "c.gif", transparency=2)
    assert load_image(tmp_path / "c.gif")[0, 2].tolist() == [255, 255, 255]


def test_cmyk(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    red, green, blue = load_image(tmp_path / "a.jpg")[4, 4]
    assert red > 240
    assert green < 15
    assert blue < 15


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, pixels: np.ndarray, orientation: int) -> None:
    upright = {
        1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1], 5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, -1), 7: pixels[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(pixels, 1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    assert close(load_image(tmp_path / "a.png"), upright)
    assert image_size(tmp_path / "a.png") == upright.shape[:2]


def test_odd_modes_are_no_obstacle() -> None:
    for mode in ("YCbCr", "LAB", "HSV", "PA", "RGBa", "La", "RGBX", "I;16B"):
        assert load_image(Image.new(mode, (5, 4))).shape == (4, 5, 3)


def test_the_first_of_several_frames(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    assert load_image(tmp_path / "a.tif")[0, 0].tolist() == [255, 0, 0]


@pytest.mark.slow
def test_a_very_large_image(tmp_path: Path) -> None:
    Image.new("RGB", (8000, 8000), "teal").save(tmp_path / "a.png", compress_level=1)
    assert load_image(tmp_path / "a.png").shape == (8000, 8000, 3)


# What must be refused, with one sentence that names the file.
def png(width: int, height: int, depth: int = 8, colour: int = 2, rows: bytes = b"") -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def refused(path: Path, error: type[Exception] = ValueError) -> str:
    with pytest.raises(error) as caught:
        load_image(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_missing_folder_empty_and_no_image(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "no.png", FileNotFoundError)
    assert "not a file" in refused(tmp_path)
    (tmp_path / "empty.png").write_bytes(b"")
    assert "0 bytes" in refused(tmp_path / "empty.png")
    (tmp_path / "text.png").write_text("not an image at all")
    assert "is not an image" in refused(tmp_path / "text.png")


@pytest.mark.parametrize("form", ["png", "jpg", "tif", "bmp", "gif", "webp"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_truncated_files(tmp_path: Path, form: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (120, 100, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / f"whole.{form}")
    whole = (tmp_path / f"whole.{form}").read_bytes()
    (tmp_path / f"cut.{form}").write_bytes(whole[: int(len(whole) * share)])
    assert f"cut.{form}" in refused(tmp_path / f"cut.{form}")


def test_zero_sized(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(0, 5))
    refused(tmp_path / "a.png")
    for empty in (Image.new("RGB", (0, 5)), np.zeros((0, 5, 3), np.uint8)):
        with pytest.raises(ValueError, match="has no pixels"):
            load_image(empty)


def test_far_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(40_000, 40_000))
    assert "too many pixels" in refused(tmp_path / "a.png")


@pytest.mark.parametrize("array", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_arrays_of_another_kind(array: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"must be \(H, W, 3\) uint8, got"):
        load_image(array)


# Folders.
def test_images_of_folders_and_files(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", ".hidden.png"):
        Image.new("RGB", (2, 2)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("")
    assert [p.name for p in list_images(tmp_path)] == ["a.JPG", "b.png"]
    assert len(collect_images([tmp_path, tmp_path / "b.png"], tmp_path / "out")) == 2
    (tmp_path / "none").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no image"):
        list_images(tmp_path / "none")


def test_two_images_of_one_stem_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.png and .*a\.jpg share the stem 'a'"):
        collect_images([tmp_path / "a.png", tmp_path / "a.jpg"], tmp_path)


def test_our_own_pictures_are_no_input(tmp_path: Path) -> None:
    for name in ("a.png", "a.mask.png", "a.overlay.png"):
        Image.new("RGB", (2, 2)).save(tmp_path / name)
    assert collect_images([tmp_path], tmp_path) == [tmp_path / "a.png"]


# Masks and references.
def test_masks_in_any_mode(tmp_path: Path) -> None:
    inside = np.zeros((6, 8), bool)
    inside[1:4, 2:7] = True
    grey = Image.fromarray(inside.astype(np.uint8) * 255)
    palette = Image.fromarray(inside.astype(np.uint8) * 3, mode="L").convert("P")
    palette.putdata((inside * 3).ravel().tolist())
    palette.putpalette([255, 255, 255, 1, 2, 3, 4, 5, 6, 0, 0, 0])  # what index 0 looks like does not matter
    rgba_opaque = grey.convert("RGBA")
    rgba_shaped = Image.new("RGBA", (8, 6))
    rgba_shaped.putalpha(grey)
    files = {"L": grey, "1": grey.convert("1"), "P": palette, "RGB": grey.convert("RGB"), "RGBA": rgba_opaque,
             "alpha": rgba_shaped, "LA": grey.convert("LA"), "16": Image.fromarray(inside.astype(np.uint16)),
             "one": Image.fromarray(inside.astype(np.uint8))}  # fmt: skip
    for name, picture in files.items():
        picture.save(tmp_path / f"{name}.png")
        assert np.array_equal(load_mask(tmp_path / f"{name}.png"), inside), name


def test_references_are_parsed(tmp_path: Path) -> None:
    assert parse_reference("box:1,2,3.5,4") == BoxRef((1.0, 2.0, 3.5, 4.0))
    assert parse_reference("point: 5, 6") == PointRef((5.0, 6.0))
    Image.fromarray(np.eye(4, dtype=np.uint8)).save(tmp_path / "m.png")
    reference = parse_reference(str(tmp_path / "m.png"))
    assert isinstance(reference, MaskRef)
    assert np.array_equal(reference.mask, np.eye(4, dtype=bool))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("box:1,2,3", "expected box:x0,y0,x1,y1"),
        ("box:", "expected box:x0,y0,x1,y1"),
        ("point:a,b", "expected point:x,y"),
        ("box:5,5,5,9", "is empty"),
        ("box:9,9,1,1", "is empty"),
        ("box:nan,0,1,1", "is empty"),
        ("point:inf,0", "is not a point"),
    ],
)
def test_references_that_cannot_be_read(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_reference(text)


def test_missing_and_empty_reference_masks(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"mask .*no\.png does not exist"):
        parse_reference(str(tmp_path / "no.png"))
    Image.new("L", (4, 4)).save(tmp_path / "zero.png")
    with pytest.raises(ValueError, match=r"zero\.png is empty"):
        parse_reference(str(tmp_path / "zero.png"))


@pytest.mark.parametrize(
    "reference",
    [BoxRef((0, 0, 11, 5)), BoxRef((20, 20, 30, 30)), BoxRef((-1, 0, 5, 5)), PointRef((10, 2)), PointRef((-0.5, 2))],
)
def test_references_outside_the_image(reference: BoxRef | PointRef) -> None:
    with pytest.raises(ValueError, match="outside the image, which is 10x8"):
        reference.check((8, 10))


def test_references_at_the_edge_fit() -> None:
    for reference in (BoxRef((0, 0, 10, 8)), PointRef((9.9, 7.9)), MaskRef(np.ones((8, 10), bool))):
        reference.check((8, 10))


def test_a_reference_mask_of_another_size() -> None:
    with pytest.raises(ValueError, match=r"m\.png is 4x3 but the image is 10x8"):
        MaskRef(np.ones((3, 4), bool), "reference mask m.png").check((8, 10))


# Sources that are no path.
def test_bytes_and_open_files(tmp_path: Path, pixels: np.ndarray) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    content = path.read_bytes()
    with path.open("rb") as opened:
        for source in (content, bytearray(content), io.BytesIO(content), opened):
            assert close(load_image(source), pixels)
    with pytest.raises(ValueError, match=r"image of 10 bytes is not an image"):
        load_image(content[:3] + b"nothing")
    with pytest.raises(ValueError, match=f"image of {len(content) - 60} bytes is truncated"):
        load_image(content[:-60])
    with pytest.raises(ValueError, match=r"image .*a\.png cannot be read"):
        load_image(opened)  # it is closed
    (tmp_path / "t.txt").write_text("text")
    with (
        (tmp_path / "t.txt").open() as text,
        pytest.raises(TypeError, match="reads as text; expected a file opened for"),
    ):
        load_image(text)  # type: ignore[arg-type]


def test_a_truncated_pil_image(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (120, 100, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="image is truncated or damaged"):
        load_image(Image.open(tmp_path / "cut.jpg"))


@pytest.mark.parametrize(
    "url", ["http://a.org/b.png", "HTTPS://a.org/b.png", "s3://a/b.png", "file:///b.png", "data:image/png;base64,x"]
)
def test_urls_are_named(url: str, tmp_path: Path) -> None:
    for read, what in ((load_image, "image"), (load_mask, "mask"), (image_size, "image")):
        with pytest.raises(ValueError, match=f"{what} {url} is a URL; expected a file: download it first"):
            read(url)
    with pytest.raises(ValueError, match="is a URL"):
        collect_images([Path(url)], tmp_path)


def test_arrays_are_copied(pixels: np.ndarray) -> None:
    for given in (pixels, pixels[::-1], np.asfortranarray(pixels)):
        found = load_image(given)
        assert np.array_equal(found, given) and not np.shares_memory(found, given) and found.flags.c_contiguous


# Deep and multispectral pictures.
def tiff(values: np.ndarray, photometric: int = 1) -> bytes:
    """Uncompressed TIFF of (H, W, bands), interleaved, as a camera or a satellite tool writes it."""
    height, width, bands = values.shape
    bits, kind = values.dtype.itemsize * 8, {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    body = values.astype(values.dtype.newbyteorder("<")).tobytes()
    entries = [(256, 4, [width]), (257, 4, [height]), (258, 3, [bits] * bands), (259, 3, [1]), (262, 3, [photometric]),
               (273, 4, [0]), (277, 3, [bands]), (278, 4, [height]), (279, 4, [len(body)]), (284, 3, [1]),
               (339, 3, [kind] * bands)]  # fmt: skip
    if bands > 3:
        entries.insert(10, (338, 3, [0] * (bands - (3 if photometric == 2 else 1))))
    place = 8 + 2 + 12 * len(entries) + 4
    directory, behind = struct.pack("<H", len(entries)), b""
    for tag, form, numbers in entries:
        packed = b"".join(struct.pack("<H" if form == 3 else "<I", number) for number in numbers)
        if tag == 273:
            directory += struct.pack("<HHI", tag, form, 1) + b"BODY"
        elif len(packed) <= 4:
            directory += struct.pack("<HHI", tag, form, len(numbers)) + packed.ljust(4, b"\0")
        else:
            directory += struct.pack("<HHII", tag, form, len(numbers), place + len(behind))
            behind += packed
    directory = directory.replace(b"BODY", struct.pack("<I", place + len(behind))) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8) + directory + behind + body


@pytest.mark.parametrize(
    ("dtype", "bands", "said"),
    [
        (np.float32, 3, "3 bands of 32-bit float"), (np.float32, 4, "4 bands of 32-bit float"),
        (np.float64, 1, "1 band of 64-bit float"), (np.uint16, 5, "5 bands of 16-bit unsigned integer"),
        (np.uint8, 5, "5 bands of 8-bit unsigned integer"),
    ],
)  # fmt: skip
def test_what_of_tiff_is_not_supported(tmp_path: Path, dtype: type, bands: int, said: str) -> None:
    content = tiff(np.ones((4, 5, bands), dtype))
    (tmp_path / "a.tif").write_bytes(content)
    for source in (tmp_path / "a.tif", content):
        with pytest.raises(ValueError, match=f"is a TIFF of {said}, which is not supported; expected one band"):
            load_image(source)
    assert "\n" not in refused(tmp_path / "a.tif")


def test_a_damaged_tiff_is_no_traceback(tmp_path: Path) -> None:
    content = tiff(np.ones((4, 5, 5), np.uint16))
    for cut in (4, 8, 9, 20, 60):
        (tmp_path / "a.tif").write_bytes(content[:cut])
        assert "is not an image, or its header is damaged" in refused(tmp_path / "a.tif")


@pytest.mark.parametrize("bits", [10, 12])
def test_ten_and_twelve_bits_in_sixteen_are_warned_of(tmp_path: Path, bits: int) -> None:
    values = np.linspace(0, 2**bits - 1, 64, dtype=np.uint16).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "a.png")
    with pytest.warns(
        DarkImageWarning, match=r"image .*a\.png reads nearly black: no value is above \d+ of 255; 10- or"
    ):
        assert load_image(tmp_path / "a.png").max() <= 16
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "f.tif")
    with pytest.warns(DarkImageWarning, match=r"f\.tif reads nearly black"):
        load_image(tmp_path / "f.tif")
    with pytest.warns(DarkImageWarning, match=r"the image reads nearly black: no value is above 9 of 255$"):
        load_image(Image.new("RGB", (4, 4), (9, 9, 9)))


def test_other_pictures_are_not_warned_of(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    Image.fromarray((np.arange(64, dtype=np.uint16) * 1040).reshape(8, 8)).save(tmp_path / "a.png")
    load_image(tmp_path / "a.png")
    dark = np.zeros((8, 8, 3), np.uint8)
    dark[0, 0] = 40
    load_image(Image.fromarray(dark))
    load_image(np.zeros((4, 4, 3), np.uint8))  # whoever has an array has read it already
    assert [w for w in recwarn if w.category is DarkImageWarning] == []


def test_float_masks_must_be_masks(tmp_path: Path) -> None:
    inside = np.eye(4, dtype=np.float32)
    for factor, name in ((1, "unit.tif"), (255, "byte.tif")):
        Image.fromarray(inside * factor).save(tmp_path / name)
        assert np.array_equal(load_mask(tmp_path / name), inside > 0)
    Image.fromarray(inside * 0.7 + 0.1).save(tmp_path / "p.tif")
    with pytest.raises(ValueError, match=r"mask .*p\.tif of dtype float32 holds values from 0\.1 to 0\.8"):
        load_mask(tmp_path / "p.tif")
