"""Values and JSON as tools write them: NaN, byte order marks, numbers as texts, pointers instead of files."""

import json
from pathlib import Path
from typing import Any

import ijson
import pytest

from maskselect.data.catalog import CATALOG
from maskselect.data.check import NOTHING, check
from maskselect.data.files import inside, read_json
from maskselect.data.images import image_size, load_image, load_mask
from maskselect.data.index import Section, open_index
from maskselect.data.json_text import kind_at, open_json
from maskselect.data.label_images import read_label
from maskselect.data.panoptic import read_ids
from maskselect.data.rows import JsonRows, ParquetRows
from maskselect.data.values import flag_of, key_of, names_of

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def test_words_outside_of_texts_are_null(tmp_path: Path) -> None:
    rows = [
        {"NaN": float("nan"), "b": [float("inf"), -float("inf"), -1.5, "NaN", "-Infinity"]},
        {'a "NaN" \\': 'ends on \\" NaN', "d": "\\\\\\", "e": "NaNNaN Infinity" * 3, "f": "é"},
    ]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows, ensure_ascii=False), "utf-8")
    with open_json(path) as file:
        found = list(ijson.items(file, "item", use_float=True))
    assert found == [{"NaN": None, "b": [None, None, -1.5, "NaN", "-Infinity"]}, rows[1]]
    path.write_text("[NaN, ")
    with pytest.raises(ValueError, match="truncated or not JSON"), open_json(path):
        pass


def test_byte_order_marks(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('[{"id": 1}]', "utf-8-sig")
    assert read_json(path) == [{"id": 1}]
    assert open_index(path, {"row": Section("")}).get("row", 1) == {"id": 1}
    lines = tmp_path / "rows.jsonl"
    lines.write_text('{"id": 1}\n{"id": 2}\n', "utf-8-sig")
    assert JsonRows(lines).column("id") == [1, 2]


def test_ids_in_any_form_are_one(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('[{"id": 1.0, "of": "7"}, {"id": "2", "of": 7}, {"id": "007", "of": 7.0}, {"of": "a"}]')
    index = open_index(path, {"row": Section("", group="of", nameless=True)})
    assert index.keys("row") == [1, 2, "007", None] and index.groups("row") == [7, "a"]
    assert [len(index.of_group("row", key)) for key in ("7", 7, "a")] == [3, 3, 1]
    assert index.has("row", "1") and index.get("row", "2")["of"] == 7 and not index.has("row", 7)
    with pytest.raises(ValueError, match="neither a whole number nor a text"):
        index.get("row", 1.5)  # type: ignore[arg-type]


def test_values() -> None:
    assert [key_of(one) for one in (3, 3.0, "3", "-3", "03", "3.0", "a")] == [3, 3, 3, -3, "03", "3.0", "a"]
    for odd in (None, True, 1.5, 2**63, [1], float("nan"), float("inf")):
        with pytest.raises(ValueError, match="neither a whole number nor a text"):
            key_of(odd)
    assert [flag_of(one, "x") for one in (0, 1, "0", "1", 1.0, True, None)] == [0, 1, 0, 1, 1, 1, 0]
    for odd in ("false", "true", 2, "", [0], -1):
        with pytest.raises(ValueError, match=r"x is .*; expected 0 or 1"):
            flag_of(odd, "x")
    assert names_of([{"id": "3", "name": "mug"}, {"id": 4, "name": 7}], "category") == {3: "mug", 4: "7"}
    for nameless in ({"id": 3}, {"id": 3, "name": " "}, {"id": 3, "name": None}, {"id": 3, "name": ["mug"]}):
        with pytest.raises(ValueError, match="category 3 has the name"):
            names_of([nameless], "category")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("{}", "absent"), ('{"a": {"rows": 1}}', "absent"), ('{"rows": []}', "a list"), ('{"rows": {}}', "an object"),
        ('{"rows": null}', "null"), ('{"rows": "x"}', "a text"), ('{"rows": 5}', "a number"), ('["rows"]', "absent"),
    ],
)  # fmt: skip
def test_what_stands_under_a_key(tmp_path: Path, text: str, kind: str) -> None:
    (tmp_path / "a.json").write_text(text)
    assert kind_at(tmp_path / "a.json", "rows") == kind


@pytest.mark.parametrize(
    "read",
    [
        load_image, image_size, load_mask, read_label, read_ids, read_json,
        lambda path: open_index(path, {}), lambda path: ParquetRows([path]),
    ],
)  # fmt: skip
def test_a_pointer_is_not_the_file(tmp_path: Path, read: Any) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(LFS)
    with pytest.raises(ValueError, match=r"a\.png is a Git LFS pointer, not the file itself; run `git lfs pull`"):
        read(path)


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("/etc/a.png", "is an absolute path"), ("C:\\a.png", "is an absolute path"), ("\\\\h\\a.png", "is an absolute"),
        ("a/../../b.png", r"holds '\.\.'"), ("..\\b.png", r"holds '\.\.'"), ("gs://bucket/a.png", "is a web address"),
        ("https://x.org/a.png", "is a web address, .*download it, and write a name relative to it"),
    ],
)  # fmt: skip
def test_names_that_lead_out_say_why(tmp_path: Path, name: str, cause: str) -> None:
    with pytest.raises(ValueError, match=cause):
        inside(tmp_path, name)
    assert inside(tmp_path, "a:b.png") == tmp_path / "a:b.png"


class _Empty:
    def __len__(self) -> int:
        return 0

    def __getitem__(self, number: int) -> Any:
        raise IndexError(number)


def test_no_sample_is_a_problem() -> None:
    assert check(_Empty()).problems == {NOTHING: 1}


def test_no_data_set_opens_without_a_sample(tmp_path: Path) -> None:
    """Readers that give nothing for an empty file are refused where data sets are opened, whichever they are."""
    for name in ("muse_val.json", "validation.json", "validation.jsonl"):
        (tmp_path / name).write_text({"muse_val.json": "[]", "validation.json": "{}"}.get(name, ""))
    (tmp_path / "images").mkdir()
    for name, split in (("muse", "val"), ("llm-seg40k", "validation"), ("maskgroups", "validation")):
        with pytest.raises(ValueError, match=f"has no sample of split {split!r}"):
            CATALOG[name].open(tmp_path, split)
        with pytest.raises(ValueError, match="has no sample"):
            CATALOG[name].open_splits(tmp_path)
