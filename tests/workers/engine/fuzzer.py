"""A process that reads changed files until its time is over: `python -m tests.workers.engine.fuzzer`.

It ends with 0 where every file was read or refused. What it was at when it ended otherwise is in `case`.
"""

import argparse
import faulthandler
import io
import json
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa

from tests.workers.engine import hf_folders, mutations, pictures
from tests.workers.engine.formats.onnx_in.graphs import array, model_of, node
from tests.workers.engine.formats.zoo import ZOO
from tests.workers.engine.hostile import Entries, packed, unpack
from tests.workers.engine.old_archives import STATES, as_torch_2_5, weights_of
from tests.workers.engine.onnx_forgeries import plain
from tests.workers.engine.parquets import crafted, footer, table
from workers.engine.errors import EngineError
from workers.engine.formats import arrays, pt2
from workers.engine.formats.hf import reader as hf
from workers.engine.formats.onnx_in import reader as onnx_in
from workers.engine.rows import whole

CASE_SECONDS = 30  # of the processor: a file that takes longer hangs
MEMORY_BYTES = 4 << 30  # more than the process has when it begins
Make = Callable[[Random], bytes]
"""A changed file."""


def main() -> None:
    """Read one changed file after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("reader", choices=READERS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    asked = parser.parse_args()
    prepare, read = READERS[asked.reader]
    make = prepare()
    faulthandler.enable()
    faulthandler.register(signal.SIGPROF, chain=True)  # of which a process dies
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    random = Random(asked.seed)  # noqa: S311  # nothing secret
    sys.stdout.write(json.dumps(_run(make, read, random, asked.folder, asked.seconds)))


def _run(
    make: Make, read: Callable[[Path], object], random: Random, folder: Path, seconds: float
) -> dict[str, int]:
    """How often a file was read, and refused with which codes; leaves the process where anything else is
    raised."""
    path, ends, end = folder / "case", Counter[str](), time.monotonic() + seconds
    while time.monotonic() < end:
        path.write_bytes(make(random))
        signal.setitimer(signal.ITIMER_PROF, CASE_SECONDS)
        try:
            read(path)
            ends["read"] += 1
        except EngineError as error:
            if str(folder) in f"{error.detail} {error.hint}" or "Traceback" in error.detail:
                sys.exit(f"tells of the server: {error.detail}")
            ends[error.code] += 1
        except Exception:
            traceback.print_exc()
            sys.exit(f"an exception that is not ours, after {ends.total()} files")
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    return dict(ends.most_common())


def _any_of(samples: list[Any], mutate: Callable[[Random, Any], bytes]) -> Make:
    return lambda random: mutate(random, random.choice(samples))


def _pt2() -> Make:
    samples = []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("mlp", "scan"):
            ZOO[name].save(Path(folder) / "model.pt2")
            samples.append(unpack(Path(folder) / "model.pt2"))
    return _any_of(samples, mutations.changed_entries)


def _old_pt2() -> Make:
    """Archives of torch 2.5: changed in the pickle of their weights more often than around it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt2"
        program = ZOO["mlp"].save(path)
        entries = as_torch_2_5(unpack(path), program)
    weights = weights_of(entries)

    def make(random: Random) -> bytes:
        if random.random() < 0.3:
            return mutations.changed_entries(random, entries)
        return packed(entries | {STATES: mutations.changed_entries(random, weights)})

    return make


def _onnx() -> Make:
    conv = node("Conv", ["x", "w"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    shaped = [node("Shape", ["a"], ["s"]), node("Reshape", ["a", "s"], ["b"]), node("Relu", ["b"], ["y"])]
    recurrent = node("LSTM", ["x", "w", "r"], ["y"], hidden_size=4)
    models = [
        plain(),
        model_of([conv, *shaped], {"x": array(2, 3, 8, 8)}, ["y"], {"w": array(4, 3, 3, 3)}),
        model_of([recurrent], {"x": array(5, 2, 3)}, ["y"], {"w": array(1, 16, 3), "r": array(1, 16, 4)}),
    ]
    return _any_of([model.SerializeToString() for model in models], mutations.changed_message)


def _folder() -> Make:
    samples: list[Entries] = []
    with tempfile.TemporaryDirectory() as folder:
        for architecture, fields in (("BertModel", "bert"), ("GPT2Model", "gpt2"), ("ResNetModel", "resnet")):
            model = hf_folders.model_of(architecture, hf_folders.SMALL[fields])
            samples.append(hf_folders.entries_of(model, Path(folder) / fields))
    return _any_of(samples, mutations.changed_entries)


def _arrays() -> Entries:
    arrays_: dict[str, np.ndarray] = {
        "x": np.ones((6, 3), np.float32),
        "target": np.arange(6),
        "flags": np.ones((6, 2, 2), np.bool_),
    }
    entries = {}
    for name, values in arrays_.items():
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, values)
        entries[f"{name}.npy"] = buffer.getvalue()
    return entries


def _safetensors() -> Make:
    from safetensors.numpy import save  # noqa: PLC0415

    sample = save({"x": np.ones((6, 3), np.float32), "target": np.arange(6)})
    return _any_of([sample], mutations.changed_safetensors)


def _parquet() -> Make:
    columns = {
        "x": pa.array(np.arange(60, dtype=np.float32)),
        "lists": pa.array([[[1.0, 2.0], [3.0, 4.0]]] * 60),
        "target": pa.array(np.arange(60) % 3).dictionary_encode(),
    }
    folder = tempfile.mkdtemp()
    path = Path(folder) / "file"
    samples = [
        table(path, columns, compression=codec, data_page_version=version).read_bytes()
        for codec, version in (("none", "1.0"), ("snappy", "1.0"), ("zstd", "2.0"), ("gzip", "1.0"))
    ]
    return lambda random: _changed_parquet(random, random.choice(samples), path)


def _changed_parquet(random: Random, data: bytes, path: Path) -> bytes:
    """Values of the description changed, which is then written anew; or any bytes."""
    if random.random() < 0.5:
        return mutations.changed_bytes(random, data)
    path.write_bytes(data)
    fields: Any = footer(path)
    for _ in range(random.choice((1, 1, 2, 4))):
        numbers = [
            place for place in mutations.places(fields) if isinstance(mutations.at(fields, place), int)
        ]
        place = random.choice(numbers)
        value = random.choice(
            [-1, 0, 1, 2, 5, 60, 2**31, 2**40, 2**62, mutations.at(fields, random.choice(numbers))]
        )
        mutations.mutate(fields, place, value, random.choice(("replace", "replace", "remove")))
    length = int.from_bytes(data[-8:-4], "little")
    return crafted(path, data[4 : -8 - length], fields).read_bytes()


def _images() -> Make:
    entries = {
        f"{name}/{kind}.png": pictures.picture(pixels, kind)
        for name, kind, pixels in zip("abca", ("PNG", "JPEG", "BMP", "WEBP"), pictures.COLOURS, strict=False)
    }
    said = {"preprocessing.json": json.dumps({"size": [8, 8], "crop": "center", "resize": 9}).encode()}
    return _any_of([entries, entries | said], mutations.changed_entries)


def _data(kind: str) -> Callable[[Path], object]:
    """Inspection, and then what a job does: every row is asked for."""

    def read(path: Path) -> None:
        arrays.inspect(path, kind)
        for rows in arrays.read(path, kind).values():
            whole(rows)

    return read


READERS: dict[str, tuple[Callable[[], Make], Callable[[Path], object]]] = {
    "pt2": (_pt2, pt2.read),
    "old_pt2": (_old_pt2, pt2.read),
    "onnx": (_onnx, onnx_in.read),
    "folder": (_folder, hf.read),
    "npz": (lambda: _any_of([_arrays()], mutations.changed_entries), _data("npz")),
    "safetensors": (_safetensors, _data("safetensors")),
    "parquet": (_parquet, _data("parquet")),
    "images": (_images, _data("zip")),
}
"""For each reader what makes changed files for it, and itself."""

if __name__ == "__main__":
    main()
