"""The rules of zip archives, one forged file each."""

import stat
import struct
import zipfile
from pathlib import Path

import pytest

from tests.workers.engine.hostile import pack, rejection
from workers.engine.admit import archive
from workers.engine.admit.archive import Rules, open_archive

DEFLATED = Rules(deflate=True, max_bytes=1 << 20, max_ratio=50, free_bytes=1 << 10)


def read_all(path: Path, rules: Rules = Rules()) -> dict[str, bytes]:  # noqa: B008  # immutable
    with open_archive(path, rules) as opened:
        return {name: opened.read(name, 1 << 20) for name in opened.names}


def code(path: Path, rules: Rules = Rules()) -> str:  # noqa: B008  # immutable
    return rejection(lambda file: read_all(file, rules), path).code


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return pack(tmp_path / "good.zip", {"a/one": b"1" * 100, "a/two": b"22"})


def patched(path: Path, *changes: tuple[bytes, int, bytes]) -> Path:
    """The file with bytes overwritten at an offset after the last occurrence of a signature."""
    data = bytearray(path.read_bytes())
    for signature, offset, value in changes:
        start = data.rindex(signature) + offset
        data[start : start + len(value)] = value
    path.write_bytes(data)
    return path


def test_a_good_archive_is_read(good: Path) -> None:
    assert read_all(good) == {"a/one": b"1" * 100, "a/two": b"22"}


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"hello, world", b"\x80\x04pickle" * 20, b"\x7fELF" + bytes(100)]
)
def test_what_is_no_zip_is_named_so(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    assert code(tmp_path / "file") == "not_a_zip"


def test_a_file_cut_anywhere_is_rejected(good: Path) -> None:
    whole = good.read_bytes()
    for length in range(4, len(whole)):
        good.write_bytes(whole[:length])
        assert code(good) == "truncated_archive"


def test_bytes_behind_the_directory_are_rejected(good: Path) -> None:
    good.write_bytes(good.read_bytes() + b"\n")
    assert code(good) == "truncated_archive"


def test_damaged_bytes_are_rejected(good: Path) -> None:
    good.write_bytes(good.read_bytes().replace(b"1111", b"1211", 1))
    assert code(good) == "corrupt_archive"


def test_a_damaged_directory_is_rejected(good: Path) -> None:
    patched(good, (b"PK\x05\x06", 16, b"\xff\xff\x00\x00"))
    assert code(good) == "corrupt_archive"


@pytest.mark.parametrize(
    "name", ["../a", "a/../../b", "/etc/passwd", "a//b", "./a", "a\\..\\b", "C:/a", "a/\x07", "a\nb", ".."]
)
def test_names_that_point_elsewhere_are_rejected(name: str, tmp_path: Path) -> None:
    assert code(pack(tmp_path / "file", {name: b"1"})) == "unsafe_entry"


def test_a_name_cut_at_a_null_byte_is_rejected(tmp_path: Path) -> None:
    path = pack(tmp_path / "file", {"a/one_two": b"1"})
    path.write_bytes(path.read_bytes().replace(b"a/one_two", b"a/one\0two"))
    assert code(path) == "unsafe_entry"


def test_the_entry_at_fault_is_named(tmp_path: Path) -> None:
    assert "'../evil'" in rejection(read_all, pack(tmp_path / "file", {"../evil": b"1"})).detail


def test_duplicate_entries_are_rejected(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "file", "w") as file:
        file.writestr("a", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("a", b"2")
    assert code(tmp_path / "file") == "duplicate_entry"


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR])
def test_only_plain_files_are_accepted(mode: int, tmp_path: Path) -> None:
    entry = zipfile.ZipInfo("a")
    entry.external_attr = (mode | 0o644) << 16
    with zipfile.ZipFile(tmp_path / "file", "w") as file:
        file.writestr(entry, b"/etc/passwd")
    assert code(tmp_path / "file") == "linked_entry"


def test_folders_are_rejected(tmp_path: Path) -> None:
    assert code(pack(tmp_path / "file", {"a/": b""})) == "linked_entry"


def test_folders_are_passed_over_where_they_may_be_there(tmp_path: Path) -> None:
    path = pack(tmp_path / "file", {"a/": b"", "a/b": b"1"})
    assert read_all(path, Rules(folders=True)) == {"a/b": b"1"}
    assert code(pack(tmp_path / "full", {"a/": b"1"}), Rules(folders=True)) == "linked_entry"


def test_encrypted_entries_are_rejected(good: Path) -> None:
    patched(good, (b"PK\x01\x02", 8, b"\x01\x00"))
    assert code(good) == "encrypted_entry"


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compression_is_rejected_where_entries_must_be_stored(compression: int, tmp_path: Path) -> None:
    assert code(pack(tmp_path / "file", {"a": b"1" * 500}, compression)) == "compressed_entry"


def test_deflate_is_read_where_it_is_allowed(tmp_path: Path) -> None:
    path = pack(tmp_path / "file", {"a": bytes(range(200))}, zipfile.ZIP_DEFLATED)
    assert read_all(path, DEFLATED) == {"a": bytes(range(200))}


def test_an_archive_that_unpacks_too_far_is_rejected(tmp_path: Path) -> None:
    path = pack(tmp_path / "file", {"a": bytes(1 << 19)}, zipfile.ZIP_DEFLATED)
    assert code(path, DEFLATED) == "zip_bomb"


def test_an_archive_that_unpacks_beyond_the_absolute_limit_is_rejected(tmp_path: Path) -> None:
    path = pack(tmp_path / "file", {"a": bytes(range(256)) * 10}, zipfile.ZIP_DEFLATED)
    assert code(path, Rules(deflate=True, max_bytes=2559, max_ratio=50)) == "zip_bomb"


def test_a_stored_size_that_lies_is_rejected(good: Path) -> None:
    assert code(patched(good, (b"PK\x01\x02", 24, struct.pack("<L", 1)))) == "corrupt_archive"


def test_a_size_that_lies_does_not_unpack_more_than_it_says(tmp_path: Path) -> None:
    path = pack(tmp_path / "file", {"a": bytes(1 << 16)}, zipfile.ZIP_DEFLATED)
    patched(path, (b"PK\x01\x02", 24, struct.pack("<L", 100)))
    assert code(path, DEFLATED) == "corrupt_archive"


def test_entries_that_overlap_are_rejected(tmp_path: Path) -> None:
    path = pack(tmp_path / "file", {"a": bytes(10_000), "b": bytes(10_000), "c": bytes(10_000)})
    data = path.read_bytes()
    directory = data[data.index(b"PK\x01\x02") : data.rindex(b"PK\x05\x06")]
    (start,) = struct.unpack_from("<L", directory, 42)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 3, 3, len(directory), 10_031, 0)
    path.write_bytes(data[start : start + 10_031] + directory + end)
    assert code(path) == "zip_bomb"


def test_too_many_entries_are_rejected(tmp_path: Path) -> None:
    path = pack(tmp_path / "file", {f"a{place}": b"" for place in range(11)})
    assert code(path, Rules(max_entries=10)) == "too_many_entries"
    assert len(read_all(path, Rules(max_entries=11))) == 11


def test_a_huge_directory_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = pack(tmp_path / "file", {"a": b"1"})
    patched(path, (b"PK\x05\x06", 12, struct.pack("<L", archive.MAX_DIRECTORY_BYTES + 1)))
    assert code(path) == "too_many_entries"


def test_large_archives_carry_a_second_directory_record_that_is_held_to_the_same_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    path = pack(tmp_path / "file", {"a": b"1", "b": b"2"})
    assert b"PK\x06\x06" in path.read_bytes()
    assert read_all(path) == {"a": b"1", "b": b"2"}
    patched(path, (b"PK\x06\x06", 40, struct.pack("<Q", archive.MAX_DIRECTORY_BYTES + 1)))
    assert code(path) == "too_many_entries"


def test_an_entry_beyond_the_limit_is_not_read(good: Path) -> None:
    with open_archive(good, Rules()) as opened:
        assert rejection(lambda _: opened.read("a/one", 99), good).code == "too_large"


def test_a_missing_entry_is_named(good: Path) -> None:
    with open_archive(good, Rules()) as opened:
        assert "'a/three'" in rejection(lambda _: opened.size("a/three"), good).detail


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_entry_is_read_into_buffers_one_after_the_other(compression: int, tmp_path: Path) -> None:
    path = pack(tmp_path / "file", {"a": bytes(range(100))}, compression)
    buffers = [bytearray(60), bytearray(0), bytearray(30)]
    with open_archive(path, Rules(deflate=True)) as opened:
        opened.read_into("a", map(memoryview, buffers), skip=10)
        assert b"".join(buffers) == bytes(range(10, 100))
        for lengths in ([89], [91], []):
            parts = [memoryview(bytearray(length)) for length in lengths]
            found = rejection(lambda _, parts=parts: opened.read_into("a", parts, skip=10), path)  # type: ignore[misc]
            assert found.code == "corrupt_archive"


_LARGE = bytes(range(256)) * 4096  # a mebibyte


def _mapped(path: Path, name: str = "a") -> memoryview | None:
    with open_archive(path, Rules(deflate=True, max_ratio=5000)) as opened:
        return opened.mapped(name)


@pytest.fixture
def aligned(tmp_path: Path) -> Path:
    """An archive whose entry begins at byte 64: after its header of 30, a name and a field to fill up."""
    entry = zipfile.ZipInfo("a")
    entry.extra = struct.pack("<2H", 0xFFFF, 29) + bytes(29)
    with zipfile.ZipFile(tmp_path / "file", "w") as file:
        file.writestr(entry, _LARGE)
    return tmp_path / "file"


def test_a_large_aligned_entry_stays_in_the_file(aligned: Path) -> None:
    before = aligned.read_bytes()
    found = _mapped(aligned)
    assert found is not None
    assert found == _LARGE
    found[0] = 7
    assert aligned.read_bytes() == before, "what is written is a copy"
    aligned.unlink()
    assert found[1:] == _LARGE[1:], "a deleted file is there while it is in use"


def test_other_entries_are_not_mapped(tmp_path: Path) -> None:
    assert _mapped(pack(tmp_path / "compressed", {"a": _LARGE}, zipfile.ZIP_DEFLATED)) is None
    assert _mapped(pack(tmp_path / "unaligned", {"a": _LARGE})) is None
    assert _mapped(pack(tmp_path / "small", {"x" * 34: b"1" * 100}), "x" * 34) is None


def test_a_mapped_entry_is_held_to_its_checksum(aligned: Path) -> None:
    content = bytearray(aligned.read_bytes())
    content[64 + 1000] ^= 1
    aligned.write_bytes(content)
    assert rejection(_mapped, aligned).code == "corrupt_archive"


def test_a_mapped_entry_has_to_lie_within_the_file(aligned: Path) -> None:
    content = aligned.read_bytes()
    size = struct.pack("<I", len(_LARGE))
    longer = content.replace(size, struct.pack("<I", len(_LARGE) + (1 << 16)))
    assert longer != content
    aligned.write_bytes(longer)
    assert rejection(_mapped, aligned).code == "corrupt_archive"
