"""Archives of pictures: what they may hold, and how large pictures say they are."""

import json
import stat
import struct
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.workers.engine.hostile import pack, rejection
from tests.workers.engine.pictures import COLOURS, picture, png, zipped
from workers.engine.admit import images
from workers.engine.admit.images import MAX_PIXELS, Pictures, Preprocessing

ONE = picture(COLOURS[0])


def admit(path: Path) -> Pictures:
    with images.admit(path) as (_, found):
        return found


def code(path: Path) -> str:
    return rejection(admit, path).code


def test_classes_are_numbered_by_name(tmp_path: Path) -> None:
    path = pack(tmp_path / "file", {"dog/b.png": ONE, "cat/x/1.PNG": ONE, "dog/a.jpg": ONE, "Ä/1.webp": ONE})
    found = admit(path)
    assert found.names == ("cat/x/1.PNG", "dog/a.jpg", "dog/b.png", "Ä/1.webp")
    assert (found.labels, found.classes) == ((0, 1, 1, 2), ("cat", "dog", "Ä"))


@pytest.mark.parametrize(
    ("folders", "labels", "classes"),
    [
        (["10", "2", "2"], (10, 2, 2), ()),
        (["01", "00"], (0, 1), ()),
        (["1", "x"], (0, 1), ("1", "x")),
        (["-1", "3"], (0, 1), ("-1", "3")),
        (["²", "1"], (0, 1), ("1", "²")),
    ],
)
def test_folders_named_by_numbers_are_their_own_labels(
    folders: list[str], labels: Any, classes: Any, tmp_path: Path
) -> None:
    found = admit(pack(tmp_path / "file", {f"{name}/{place}.png": ONE for place, name in enumerate(folders)}))
    assert (found.labels, found.classes) == (labels, classes)


def test_folders_and_clutter_are_passed_over(tmp_path: Path) -> None:
    clutter = ["__MACOSX/cat/._1.png", "cat/.DS_Store", "cat/Thumbs.db", ".hidden", "cat/", "cat/young/"]
    path = pack(tmp_path / "file", {"cat/1.png": ONE, **dict.fromkeys(clutter, b"")})
    assert admit(path).names == ("cat/1.png",)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("1.png", "no_class"),
        ("cat/1.gif", "unknown_entry"),
        ("cat/notes.txt", "unknown_entry"),
        ("cat/preprocessing.json", "unknown_entry"),
        (f"{'c' * 201}/1.png", "hostile_name"),
        ("../cat/1.png", "unsafe_entry"),
        ("cat/../../1.png", "unsafe_entry"),
        ("/etc/1.png", "unsafe_entry"),
        ("cat\\1.png", "unsafe_entry"),
        ("c\nat/1.png", "unsafe_entry"),
    ],
)
def test_entries_elsewhere_or_of_other_kinds_are_refused(name: str, wanted: str, tmp_path: Path) -> None:
    assert code(pack(tmp_path / "file", {"cat/0.png": ONE, name: ONE})) == wanted


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR])
@pytest.mark.parametrize("name", ["cat/1.png", "cat/"])
def test_links_and_devices_are_refused(mode: int, name: str, tmp_path: Path) -> None:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (mode | 0o644) << 16
    with zipfile.ZipFile(tmp_path / "file", "w") as file:
        file.writestr("dog/1.png", ONE)
        file.writestr(entry, b"/etc/passwd")
    assert code(tmp_path / "file") == "linked_entry"


def test_an_archive_without_pictures_is_refused(tmp_path: Path) -> None:
    assert code(zipped(tmp_path / "file", {}, size=[8, 8])) == "no_pictures"


def test_too_many_entries_or_classes_are_refused_in_time(tmp_path: Path) -> None:
    many = {f"{place}/1.png": b"" for place in range(images.MAX_CLASSES + 1)}
    assert code(pack(tmp_path / "file", many)) == "too_many_entries"


def test_a_bomb_is_refused_before_it_unpacks(tmp_path: Path) -> None:
    path = pack(tmp_path / "file", {"cat/1.bmp": bytes(350_000_000)}, zipfile.ZIP_DEFLATED)
    assert code(path) == "zip_bomb"


def test_what_is_done_to_pictures_by_default(tmp_path: Path) -> None:
    assert admit(pack(tmp_path / "file", {"cat/1.png": ONE})).preprocessing == Preprocessing()


def test_what_is_done_to_pictures_as_it_is_said(tmp_path: Path) -> None:
    said: dict[str, Any] = {"size": [8, 6], "resize": 9, "crop": "center", "mean": [0.5], "std": [2]}
    path = zipped(tmp_path / "file", {"cat/1.png": ONE}, **said, scale=1, layout="NHWC", channels=1)
    assert admit(path).preprocessing == Preprocessing((8, 6), 9, True, (0.5,), (2.0,), 1.0, 1, True)


def test_the_shorter_side_becomes_as_long_as_what_is_cut_out(tmp_path: Path) -> None:
    path = zipped(tmp_path / "file", {"cat/1.png": ONE}, size=[8, 6], crop="center", channels=1)
    found = admit(path).preprocessing
    assert (found.resize, found.mean, found.std) == (8, (0.0,), (1.0,))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", 8),
        ("size", [8]),
        ("size", [8, 0]),
        ("size", [8, 5000]),
        ("size", [8, 8.0]),
        ("size", [True, 8]),
        ("resize", 8),
        ("crop", "center"),
        ("crop", "left"),
        ("crop", ["center"]),
        ("mean", [0.5]),
        ("mean", 0.5),
        ("mean", [0, 0, "0"]),
        ("mean", [0, 0, float("nan")]),
        ("std", [1, 1, 0]),
        ("std", [1, 1, -1]),
        ("scale", "1/255"),
        ("scale", float("inf")),
        ("scale", True),
        ("layout", "CHW"),
        ("channels", 4),
        ("channels", True),
        ("channels", 3.0),
        ("resise", 8),
    ],
)
def test_what_is_not_understood_names_the_field(field: str, value: Any, tmp_path: Path) -> None:
    found = rejection(admit, zipped(tmp_path / "file", {"cat/1.png": ONE}, **{field: value}))
    assert (found.code, field in found.detail) == ("malformed", True)


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"[" * 100_000, b'{"size": [8, 8]} x'])
def test_what_is_no_json_is_refused(text: bytes, tmp_path: Path) -> None:
    path = pack(tmp_path / "file", {"cat/1.png": ONE, "preprocessing.json": text})
    assert code(path) in ("malformed", "too_deep", "too_large")


def test_a_cut_larger_than_what_it_is_cut_of_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "file", {"cat/1.png": ONE}, size=[8, 8], crop="center", resize=7)
    assert "resize" in rejection(admit, path).detail


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True, "comment": b"x" * 60_000}),
        ("BMP", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": b"Exif\0\0"}),
    ],
)
def test_headers_tell_the_size(kind: str, options: Any) -> None:
    assert images.size(picture(np.zeros((12, 9, 3), np.uint8), kind, **options), "x") == (12, 9)
    assert images.size(picture(np.zeros((300, 1, 3), np.uint8), kind, **options), "x") == (300, 1)


def test_old_bitmaps_and_those_from_the_top_down_tell_the_size() -> None:
    assert images.size(b"BM" + bytes(12) + struct.pack("<LHHHH", 12, 9, 8, 1, 24), "x") == (8, 9)
    assert images.size(b"BM" + bytes(12) + struct.pack("<LllHH", 40, 9, -8, 1, 24), "x") == (8, 9)


@pytest.mark.parametrize(
    "head",
    [
        png(60_000, 60_000),
        png(2**31 - 1, 2**31 - 1),
        b"\xff\xd8\xff\xc0\x00\x11\x08" + struct.pack(">HH", 65_000, 65_000) + bytes(9),
        b"BM" + bytes(12) + struct.pack("<LllHH", 40, 2**31 - 1, -(2**31), 1, 24),
        b"RIFF" + bytes(4) + b"WEBPVP8X" + bytes(8) + b"\xff" * 6 + bytes(4),
    ],
)
def test_pictures_of_too_many_pixels_are_refused(head: bytes) -> None:
    assert rejection(lambda _: images.size(head, "x"), Path("/file")).code == "too_many_pixels"
    assert MAX_PIXELS < 60_000**2


@pytest.mark.parametrize(
    "head", [b"", b"GIF89a" + bytes(50), b"%PDF-1.7", b"<svg>", b"II*\0" + bytes(50), b"\0" * 99]
)
def test_other_formats_are_refused_whatever_their_ending(head: bytes) -> None:
    assert rejection(lambda _: images.size(head, "x.png"), Path("/file")).code == "unknown_picture"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP"])
def test_headers_that_are_cut_are_refused(kind: str) -> None:
    whole = picture(COLOURS[0], kind)
    for length in range(20):
        found = rejection(lambda _, length=length: images.size(whole[:length], "x"), Path("/file"))  # type: ignore[misc]
        assert found.code in ("unknown_picture", "corrupt_picture")


@pytest.mark.parametrize(
    "filler", [b"\xff" * (16 << 20), b"\xff\xd0" * (8 << 20), b"\xff\xe0\x00\x00" * (4 << 20)]
)
def test_markers_without_end_are_not_followed(filler: bytes) -> None:
    began = time.process_time()
    assert (
        rejection(lambda _: images.size(b"\xff\xd8\xff\xe0\x00\x02" + filler, "x"), Path("/file")).code
        == "corrupt_picture"
    )
    assert time.process_time() - began < 1


def test_the_file_that_says_what_is_done_is_bounded(tmp_path: Path) -> None:
    text = json.dumps({"size": [8, 8]}) + " " * (1 << 17)
    assert (
        code(pack(tmp_path / "file", {"cat/1.png": ONE, "preprocessing.json": text.encode()})) == "too_large"
    )
