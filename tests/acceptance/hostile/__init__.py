"""Hostile files: one builder for every way to attack what reads uploads. None is stored; tests make them."""

from collections.abc import Mapping, Sequence

from tests.acceptance.hostile import datasets, folders, names, onnx, pt2
from tests.acceptance.hostile.vector import Vector

CORPUS: Mapping[str, Sequence[Vector]] = {
    "names": names.CORPUS.vectors,
    "pt2": pt2.CORPUS.vectors,
    "onnx": onnx.CORPUS.vectors,
    "folders": folders.CORPUS.vectors,
    "npz": datasets.NPZ.vectors,
    "safetensors": datasets.SAFETENSORS.vectors,
    "parquet": datasets.PARQUET.vectors,
    "images": datasets.IMAGES.vectors,
}
"""All of them, by the reader that they are for."""
