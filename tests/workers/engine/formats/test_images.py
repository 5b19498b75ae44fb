"""Pictures as arrays: decoded when rows are asked for, and every one at inspection."""

import contextlib
import io
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from tests.workers.engine.hostile import pack, rejection
from tests.workers.engine.pictures import COLOURS, picture, png, zipped
from workers.engine.errors import Rejected
from workers.engine.formats import arrays
from workers.engine.formats.arrays import ArrayFacts, DatasetFacts
from workers.engine.rows import whole

NAMES = ["cat/0.png", "cat/1.png", "dog/2.png", "dog/3.png", "eel/4.png"]
ENTRIES = {name: picture(pixels) for name, pixels in zip(NAMES, COLOURS, strict=True)}


def read(path: Path) -> Any:
    return whole(arrays.read(path, "zip")["image"])


def refused(path: Path) -> Rejected:
    return rejection(lambda file: arrays.inspect(file, "zip"), path)


def test_pictures_become_numbers_between_0_and_1(tmp_path: Path) -> None:
    found = arrays.read(pack(tmp_path / "file", ENTRIES), "zip")
    image, target = found["image"], found["target"]
    assert (image.shape, str(image.dtype)) == ((5, 3, 12, 9), "float32")
    np.testing.assert_allclose(whole(image), COLOURS.transpose(0, 3, 1, 2) / 255, rtol=1e-6)
    assert (whole(target).tolist(), str(target.dtype)) == ([0, 0, 1, 1, 2], "int64")
    rows = np.array([4, 0, 4])
    assert np.array_equal(image[rows], whole(image)[rows])


def test_inspection_tells_both_arrays_and_the_classes(tmp_path: Path) -> None:
    facts = arrays.inspect(pack(tmp_path / "file", ENTRIES), "zip")
    low, high = (float(np.float32(value) * np.float32(1 / 255)) for value in (COLOURS.min(), COLOURS.max()))
    image = ArrayFacts("image", "float32", (5, 3, 12, 9), low, high)
    labels = ArrayFacts("target", "int64", (5,), 0.0, 2.0, 0, ("cat", "dog", "eel"))
    assert facts == DatasetFacts(5, (image, labels))


def test_layout_mean_and_spread(tmp_path: Path) -> None:
    said = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.5]}
    found = read(zipped(tmp_path / "file", ENTRIES, **said, layout="NHWC"))
    expected = (COLOURS / 255 - [0.4, 0.5, 0.6]) / [0.2, 0.3, 0.5]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    first = read(zipped(tmp_path / "file", ENTRIES, **said))
    assert np.array_equal(first, found.transpose(0, 3, 1, 2))
    assert np.array_equal(read(zipped(tmp_path / "file", ENTRIES, scale=1)), COLOURS.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3])
def test_other_colours_become_grey_or_three(mode: str, channels: int, tmp_path: Path) -> None:
    kind = "JPEG" if mode == "CMYK" else "PNG"
    data = picture(COLOURS[0], kind, mode)
    found = read(zipped(tmp_path / "file", {"a/1.jpg": data}, channels=channels, scale=1))
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(12, 9, channels)
    assert found.shape == (1, channels, 12, 9)
    assert np.array_equal(found[0].transpose(1, 2, 0), expected)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "JPEG"])
def test_every_format_is_decoded_whatever_its_ending(kind: str, tmp_path: Path) -> None:
    smooth = np.linspace(0, 255, 32 * 32 * 3).reshape(32, 32, 3).astype(np.uint8)
    options = {"quality": 95} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    found = read(zipped(tmp_path / "file", {"a/1.png": picture(smooth, kind, **options)}, scale=1))
    np.testing.assert_allclose(found[0].transpose(1, 2, 0), smooth, atol=30 if kind == "JPEG" else 0)


@pytest.mark.parametrize(("height", "width"), [(40, 60), (60, 40), (25, 24)])
def test_resizing_is_what_torch_calls_bilinear_with_antialias(
    height: int, width: int, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    entries, image = (
        {"a/1.png": picture(pixels)},
        torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy()).float(),
    )
    found = read(zipped(tmp_path / "file", entries, size=[16, 12], scale=1))
    expected = F.interpolate(image, (16, 12), mode="bilinear", antialias=True)
    np.testing.assert_allclose(found, expected.numpy(), atol=1.01)  # pillow rounds after each axis

    found = read(zipped(tmp_path / "file", entries, size=[16, 12], crop="center", resize=20, scale=1))
    scale = 20 / min(height, width)
    high, wide = int(height * scale), int(width * scale)
    larger = F.interpolate(image, (high, wide), mode="bilinear", antialias=True)
    top, left = round((high - 16) / 2), round((wide - 12) / 2)
    np.testing.assert_allclose(found, larger[:, :, top : top + 16, left : left + 12].numpy(), atol=1.01)


def test_pictures_of_several_sizes_need_one_to_be_said(tmp_path: Path) -> None:
    entries = {**ENTRIES, "eel/5.png": picture(COLOURS[0][:, :8])}
    found = refused(pack(tmp_path / "file", entries))
    assert (found.code, "'eel/5.png'" in found.detail) == ("sizes_differ", True)
    assert "preprocessing.json" in (found.hint or "")
    assert read(zipped(tmp_path / "file", entries, size=[6, 6])).shape == (6, 3, 6, 6)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP"])
def test_pictures_that_are_cut_are_named(kind: str, tmp_path: Path) -> None:
    whole_file = picture(COLOURS[0], kind)
    for share in (0.3, 0.6, 0.9):
        cut = whole_file[: int(len(whole_file) * share)]
        found = refused(pack(tmp_path / "file", {**ENTRIES, "eel/5.png": cut}))
        assert (found.code, "'eel/5.png'" in found.detail) == ("corrupt_picture", True)


def test_damaged_pictures_are_refused_or_read_never_a_crash(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for kind in ("PNG", "JPEG", "BMP", "WEBP"):
        whole_file = picture(COLOURS[0], kind)
        for _ in range(60):
            data = bytearray(whole_file)
            data[random.integers(len(data))] = random.integers(256)
            path = pack(tmp_path / "file", {"a/1.png": bytes(data)})
            with contextlib.suppress(Rejected):
                arrays.inspect(path, "zip")


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_taken(kind: str, tmp_path: Path) -> None:
    frames, buffer = [Image.fromarray(pixels) for pixels in COLOURS], io.BytesIO()
    options = {"lossless": True} if kind == "WEBP" else {}
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], **options)
    found = read(zipped(tmp_path / "file", {"a/1.png": buffer.getvalue()}, scale=1))
    assert np.array_equal(found[0].transpose(1, 2, 0), COLOURS[0])


def test_sixteen_bits_are_refused_and_not_cut_off(tmp_path: Path) -> None:
    found = refused(pack(tmp_path / "file", {"a/1.png": picture(np.full((4, 4), 40_000, np.uint16))}))
    assert found.code == "unsupported_picture"


def test_a_bomb_is_refused_in_a_moment(tmp_path: Path) -> None:
    path = pack(tmp_path / "file", {"a/1.png": png(50_000, 50_000, bytes(1 << 20))}, zipfile.ZIP_DEFLATED)
    began = time.process_time()
    assert refused(path).code == "too_many_pixels"
    assert time.process_time() - began < 1


def test_a_picture_that_holds_more_than_it_says_is_not_unpacked_further(tmp_path: Path) -> None:
    path = pack(tmp_path / "file", {"a/1.png": png(8, 8, bytes(100 << 20))})
    began = time.process_time()
    arrays.inspect(path, "zip")  # what is beyond the last pixel is not unpacked
    assert time.process_time() - began < 1


def test_a_thread_of_pixels_does_not_grow_without_bound(tmp_path: Path) -> None:
    entries = {"a/1.png": picture(np.zeros((60_000, 1), np.uint8))}
    assert refused(zipped(tmp_path / "file", entries, size=[64, 64], crop="center")).code == "too_many_pixels"


_LARGE = """
import resource, sys
from pathlib import Path
import numpy as np
from workers.engine.formats import arrays, images

size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (48 << 20),) * 2)
facts = arrays.inspect(Path(sys.argv[1]), "zip")
print(facts.arrays[0].shape, arrays.read(Path(sys.argv[1]), "zip")["image"][np.array([1999])].shape)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits on address space")
def test_more_pictures_than_memory_holds_are_read(tmp_path: Path) -> None:
    data = picture(np.zeros((128, 128), np.uint8))
    path = pack(tmp_path / "file", {f"{place % 3}/{place}.png": data for place in range(2000)})
    command = [sys.executable, "-c", _LARGE, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[4])
    assert (done.returncode, done.stdout) == (0, "(2000, 3, 128, 128) (1, 3, 128, 128)\n"), done.stderr
    assert 2000 * 3 * 128 * 128 * 4 > 7 * (48 << 20)
