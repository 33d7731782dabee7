"""Annotation files of strangers: nothing runs, nothing leaves the folder, one sentence says what is wrong."""

import io
import os
import pickle
import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskselect.data.files import Images, find_one, inside, read_json, read_plain_pickle, unpack

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


class Payload:
    """Runs a command when a careless reader unpickles it."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.file}",)


@settings(max_examples=60)
@given(value=PLAIN, protocol=st.integers(0, 5))
def test_plain_pickles_are_read(value: object, protocol: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("pickles") / "refs.p"
    data = pickle.dumps(value, protocol)
    file.write_bytes(data)
    if any(op.name == "GLOBAL" for op, *_ in pickletools.genops(data)):  # before protocol 3 bytes are written as a call
        with pytest.raises(ValueError, match="plain"):
            read_plain_pickle(file)
    else:
        assert read_plain_pickle(file) == value


@pytest.mark.parametrize("protocol", range(6))
def test_a_payload_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    file, ran = tmp_path / "refs.p", tmp_path / "ran"
    file.write_bytes(pickle.dumps([{"ref_id": 1, "x": Payload(ran)}], protocol))
    with pytest.raises(ValueError, match=rf"{file}.*plain"):
        read_plain_pickle(file)
    assert not ran.exists()


def test_a_huge_memo_number_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "refs.p"
    file.write_bytes(b"\x80\x02]r\xff\xff\xff\x7f.")
    assert [op.name for op, *_ in pickletools.genops(file.read_bytes())] == [
        "PROTO",
        "EMPTY_LIST",
        "LONG_BINPUT",
        "STOP",
    ]
    with pytest.raises(ValueError, match="LONG_BINPUT"):
        read_plain_pickle(file)


def _complaint(read: Callable[[Path], object], file: Path) -> ValueError | None:
    try:
        read(file)
    except ValueError as error:
        return error
    return None


@settings(max_examples=150)
@given(data=st.binary(max_size=200))
def test_any_bytes_give_a_value_or_one_sentence(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("bytes") / "refs.p"
    file.write_bytes(data)
    for read in (read_plain_pickle, read_json):
        assert _complaint(read, file) is None or str(file) in str(_complaint(read, file))


def test_truncated_json_and_windows_text(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes('{"text": "caf\u00e9"}'.encode("cp1252"))
    assert read_json(file) == {"text": "caf\u00e9"}
    file.write_text('{"text": [1, 2')
    with pytest.raises(ValueError, match=r"a\.json is not valid JSON"):
        read_json(file)
    with pytest.raises(FileNotFoundError, match=r"b\.json is not there"):
        read_json(tmp_path / "b.json")


@pytest.mark.parametrize("name", ["../x.jpg", "/etc/passwd", "a/../../x.jpg", "..\\x.jpg", "C:\\x.jpg", "", "a\0b"])
def test_names_that_lead_out(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"leads out|not a file name"):
        inside(tmp_path, name)


def test_names_that_stay(tmp_path: Path) -> None:
    assert inside(tmp_path, "a/b.jpg") == tmp_path / "a" / "b.jpg"
    assert inside(tmp_path, "a\\b..jpg") == tmp_path / "a" / "b..jpg"


def test_images_in_the_first_folder_that_has_them(tmp_path: Path) -> None:
    for folder, name in (("one", "a.jpg"), ("two", "a.jpg"), ("two", "b.jpg")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).touch()
    images = Images([tmp_path / "none", tmp_path / "one", tmp_path / "two"])
    assert images.find("a.jpg") == tmp_path / "one" / "a.jpg"
    assert images.find("b.jpg") == tmp_path / "two" / "b.jpg"
    with pytest.raises(FileNotFoundError, match=r"c\.jpg"):
        images.find("c.jpg")
    with pytest.raises(FileNotFoundError, match=r"looked for .*none; get it there"):
        Images([tmp_path / "none"], "get it there")
    with pytest.raises(FileNotFoundError, match=r"looked for x or y; get it there"):
        find_one(tmp_path, ["x", "y"], "annotations", "get it there")


def _zip(members: dict[str, bytes], links: tuple[str, ...] = ()) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as zipped:
        for name, content in members.items():
            zipped.writestr(name, content)
        for name in links:
            member = zipfile.ZipInfo(name)
            member.external_attr = 0o120777 << 16
            zipped.writestr(member, "/etc/passwd")
    return data.getvalue()


def test_a_zip_is_unpacked_once(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(_zip({"images/a.jpg": b"1", "images/b.jpg": b"22"}))
    files = unpack(tmp_path / "a.zip", tmp_path / "out")
    assert [file.read_bytes() for file in files] == [b"1", b"22"]
    stamp = files[0].stat().st_mtime_ns
    assert unpack(tmp_path / "a.zip", tmp_path / "out") == files
    assert files[0].stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (_zip({"ok.jpg": b"1", "../out.jpg": b"2"}), "leads out"),
        (_zip({"ok.jpg": b"1"}, ("link",)), "link"),
        (_zip({"ok.jpg": b"1"})[:-10], "truncated or not a zip"),
        (b"no zip", "truncated or not a zip"),
    ],
    ids=["leads out", "link", "truncated", "no zip"],  # a zip holds the time, which workers would disagree about
)
def test_a_zip_that_is_refused_leaves_nothing(tmp_path: Path, data: bytes, told: str) -> None:
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(ValueError, match=told):
        unpack(tmp_path / "a.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.jpg").exists()
