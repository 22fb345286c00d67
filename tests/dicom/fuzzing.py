"""Fuzz test of the reader with mutated files, in a process of its own that may crash.

    python -m tests.dicom.fuzzing FIRST COUNT PROGRESS_FILE

File number N is the same on every run, so a crash is reproduced by its number and a count of 1. The numbers
of accepted and rejected files are printed as JSON; a wrong result ends the process with status 1.
"""

import faulthandler
import json
import random
import resource
import struct
import sys
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom import uid

from lumbar_tf.dicom.files.decoders import decode_frame
from lumbar_tf.dicom.files.frames import ImageFile, open_image
from lumbar_tf.dicom.reasons import RejectedError
from tests.dicom.made_files import DEFLATED, LOSSLESS, LOSSY, NATIVE, make_enhanced, make_file, make_pixels

MAX_SECONDS = 5
MAX_EXTRA_BYTES = 2 << 30
#: Edge values of lengths, counts and sizes.
_EDGES = (0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)

Mutation = Callable[[bytearray, random.Random], bytearray]


class FuzzError(Exception):
    """A file was wrongly accepted or wrongly rejected."""


def make_bases() -> list[bytes]:
    """Returns small valid files in different encodings."""
    pixels = make_pixels(24, 20)
    grey = (pixels >> 4).astype(np.uint8)
    signed = pixels.astype(np.int16) - 2000
    return [
        *(make_file(pixels, syntax=syntax, PatientName="a^b") for syntax in (*NATIVE, *LOSSLESS)),
        *(make_file(grey if syntax == uid.JPEGBaseline8Bit else pixels, syntax=syntax) for syntax in LOSSY),
        *(make_file(signed, syntax=syntax) for syntax in (uid.RLELossless, uid.JPEG2000Lossless)),
        make_file(grey, syntax=uid.RLELossless, PhotometricInterpretation="MONOCHROME1"),
        make_enhanced(),
        make_enhanced(syntax=uid.RLELossless),
        make_enhanced(syntax=uid.JPEGLSLossless, fragments_per_frame=2),
    ]


def _flip_bits(data: bytearray, dice: random.Random) -> bytearray:
    for _ in range(dice.choice((1, 1, 2, 4, 16))):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    return data


def _set_bytes(data: bytearray, dice: random.Random) -> bytearray:
    start = dice.randrange(len(data))
    length = min(dice.choice((1, 2, 4, 16, 64)), len(data) - start)
    data[start : start + length] = dice.choice((bytes(length), b"\xff" * length, dice.randbytes(length)))
    return data


def _splice(data: bytearray, dice: random.Random) -> bytearray:
    source, target = dice.randrange(len(data)), dice.randrange(len(data))
    piece = data[source : source + dice.choice((2, 8, 32, 128))]
    data[target : target + len(piece)] = piece
    return data


def _cut(data: bytearray, dice: random.Random) -> bytearray:
    return data[: dice.randrange(len(data))]


def _delete(data: bytearray, dice: random.Random) -> bytearray:
    start = dice.randrange(len(data))
    del data[start : start + dice.choice((1, 2, 8, 32, 128))]
    return data


def _duplicate(data: bytearray, dice: random.Random) -> bytearray:
    start = dice.randrange(len(data))
    piece = data[start : start + dice.choice((2, 8, 32, 128))]
    data[start:start] = piece * dice.choice((1, 1, 2, 50))
    return data


def _edit_number(data: bytearray, dice: random.Random) -> bytearray:
    """Writes an edge value at the possible place of a length, a count or a size."""
    layout = dice.choice(("<H", "<I", ">H", ">I", "B"))
    size = struct.calcsize(layout)
    start = dice.randrange(max(1, len(data) - size)) & -2
    if start + size <= len(data):
        struct.pack_into(layout, data, start, dice.choice(_EDGES) & ((1 << 8 * size) - 1))
    return data


_MUTATIONS: tuple[Mutation, ...] = (
    _flip_bits,
    _flip_bits,
    _set_bytes,
    _splice,
    _cut,
    _delete,
    _duplicate,
    _edit_number,
    _edit_number,
)


def mutate(bases: list[bytes], number: int) -> bytes:
    """Returns file `number`."""
    dice = random.Random(number)
    base = dice.choice(bases)
    split = 0
    if DEFLATED.encode() in base[:400] and dice.random() < 0.7:
        return _mutate_inflated(base, dice)
    if dice.random() < 0.5:
        # Otherwise code streams would be mutated too rarely, and the prefix too often.
        split = base.rindex(b"\xe0\x7f\x10\x00") if b"\xe0\x7f\x10\x00" in base else 132
    data = bytearray(base[split:])
    for _ in range(dice.choice((1, 1, 2, 3))):
        data = dice.choice(_MUTATIONS)(data, dice) or bytearray(b"\0")
    return base[:split] + bytes(data)


def _mutate_inflated(base: bytes, dice: random.Random) -> bytes:
    """Mutates the inflated dataset: a mutated deflated stream would hardly ever inflate."""
    (length,) = struct.unpack_from("<I", base, 140)
    start = 144 + length
    data = bytearray(zlib.decompress(base[start:], -zlib.MAX_WBITS))
    data = dice.choice(_MUTATIONS)(data, dice)
    deflater = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    return base[:start] + deflater.compress(bytes(data)) + deflater.flush()


def read(data: bytes) -> str:
    """Reads a file like the study reader, and returns "accepted" or the reason code.

    Raises:
        FuzzError: an accepted file has a wrong shape or position, or memory ran out.
    """
    try:
        image = open_image(data)
        for frame in image.frames:
            _check_frame(image, frame.index)
    except RejectedError as error:
        if "MemoryError" in str(error):
            raise FuzzError("memory ran out") from error
        return error.reason.value
    return "accepted"


def _check_frame(image: ImageFile, index: int) -> None:
    frame = image.frames[index]
    pixels = decode_frame(image, frame)
    geometry = frame.geometry
    if pixels.shape != (geometry.rows, geometry.columns) or pixels.dtype.kind not in "uif":
        raise FuzzError(f"pixels of {pixels.shape} {pixels.dtype}")
    numbers = (
        *geometry.position,
        *geometry.row_direction,
        *geometry.column_direction,
        geometry.row_spacing_mm,
        geometry.column_spacing_mm,
    )
    if not np.isfinite(numbers).all() or not np.isfinite(pixels).all():
        raise FuzzError("a position or a pixel is not finite")


def _limit_memory() -> None:
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MAX_EXTRA_BYTES, resource.RLIM_INFINITY))


def main(first: int, count: int, progress: Path) -> None:
    """Reads files `first` to `first + count - 1`."""
    bases = make_bases()
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    warnings.simplefilter("ignore")  # as the study reader does
    for base in bases:
        if read(base) != "accepted":
            raise FuzzError("a valid file is rejected")
    _limit_memory()
    with progress.open("w") as file:
        for number in range(first, first + count):
            file.seek(0)
            file.write(f"{number}\n")
            file.flush()
            data = mutate(bases, number)
            faulthandler.dump_traceback_later(MAX_SECONDS, exit=True)
            start = time.perf_counter()
            outcomes[read(data)] += 1
            slowest = max(slowest, time.perf_counter() - start)
            faulthandler.cancel_dump_traceback_later()
    print(json.dumps({"outcomes": outcomes, "slowest_seconds": slowest, "peak_bytes": _peak_bytes()}))


def _peak_bytes() -> int:
    """Returns the peak memory of this process; getrusage would include that of the parent process."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


if __name__ == "__main__":
    faulthandler.enable()
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
