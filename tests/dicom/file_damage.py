"""Functions that damage a valid file, for the tables of faulty files."""

import io
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pydicom
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from lumbar_tf.dicom.reasons import RejectReason

Spoil = Callable[[bytes], bytes]


@dataclass(frozen=True)
class FileFault:
    """A fault of a file.

    Attributes:
        name: description of the fault.
        reason: expected reason code of `open_image` or `decode_frame`.
        make: function that makes the faulty file from a valid one.
    """

    name: str
    reason: RejectReason
    make: Spoil


def read_dataset(good: bytes) -> Dataset:
    return pydicom.dcmread(io.BytesIO(good))


def write_dataset(dataset: Dataset) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of intentional faults
        pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


def edited(**tags: Any) -> Spoil:
    """Returns a function that changes values of a file; None removes a tag."""

    def spoil(good: bytes) -> bytes:
        dataset = read_dataset(good)
        for keyword, value in tags.items():
            if value is not None:
                setattr(dataset, keyword, value)
            elif keyword in dataset:
                delattr(dataset, keyword)
        return write_dataset(dataset)

    return spoil


def patched(keyword: str, value: bytes, vr: bytes | None = None) -> Spoil:
    """Returns a function that writes bytes into an element that pydicom would not write."""

    def spoil(good: bytes) -> bytes:
        tag = tag_for_keyword(keyword)
        start = good.index(struct.pack("<HH", tag >> 16, tag & 0xFFFF), 132)
        old_vr, length = struct.unpack_from("<2sH", good, start + 4)
        new = struct.pack("<2sH", vr or old_vr, len(value)) + value
        return good[: start + 4] + new + good[start + 8 + length :]

    return spoil


def with_syntax(syntax: bytes) -> Spoil:
    """Returns a function that changes the transfer syntax and length of the file meta information."""

    def spoil(good: bytes) -> bytes:
        value = syntax + b"\0" * (len(syntax) % 2)
        other = patched("TransferSyntaxUID", value)(good)
        (length,) = struct.unpack_from("<I", other, 140)
        return other[:140] + struct.pack("<I", length + len(other) - len(good)) + other[144:]

    return spoil


def find_pixel_data(good: bytes) -> int:
    """Returns the offset of the last element of the file, its pixel data."""
    return good.rindex(b"\xe0\x7f\x10\x00")


def cut_to(keep: float) -> Spoil:
    return lambda data: data[: int(len(data) * keep)]


def chain(first: Spoil, second: Spoil) -> Spoil:
    return lambda data: second(first(data))
