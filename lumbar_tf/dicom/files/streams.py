"""What a compressed frame's code stream says of itself, checked before a decoder takes memory for it.

Decoders believe the code stream's own size, and libjpeg paints what is missing of a cut stream without a
word. So the size in the stream must be the header's, and the stream must end where its format ends it.
"""

import re
import struct
from dataclasses import dataclass, replace
from itertools import pairwise

from lumbar_tf.dicom.reasons import RefusedError, RejectReason

#: JPEG frames that DICOM uses for one grey component (ITU-T T.81 table B.1): baseline, extended sequential,
#: lossless, all with Huffman coding; and JPEG-LS (T.87 table C.1). Progressive ones were retired.
_JPEG_FRAMES = frozenset((0xC0, 0xC1, 0xC3))
_JPEG_LS_FRAMES = frozenset((0xF7,))
_ALL_FRAMES = frozenset((*range(0xC0, 0xD0), 0xF7)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN, _RESTART_INTERVAL = 0xDA, 0xDD
_START_OF_IMAGE, _END_OF_IMAGE = b"\xff\xd8", b"\xff\xd9"
#: The next marker in entropy-coded data: T.81 stuffs a zero byte after FF and lets restarts stand between,
#: T.87 (clause C.1) stuffs a zero bit, so what follows FF is below 80.
_JPEG_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
_JPEG_LS_MARKER = re.compile(rb"\xff+[\x80-\xcf\xd8-\xfe]")

_RLE_HEADER = struct.Struct("<16I")
#: PackBits: two bytes make at most 128.
_MAX_RLE_RATIO = 64


@dataclass(frozen=True)
class PixelLayout:
    """How the header says that pixels are stored (PS3.3 section C.7.6.3).

    Attributes:
        rows: height.
        columns: width.
        bits_allocated: 8 or 16, the size of a pixel's container.
        bits_stored: the bits in use, the lowest of the container.
        is_signed: two's complement (PixelRepresentation 1).
        is_inverted: MONOCHROME1, the smallest value is white.
    """

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    is_signed: bool
    is_inverted: bool

    @property
    def num_bytes(self) -> int:
        """A frame's size when nothing is compressed."""
        return self.rows * self.columns * (self.bits_allocated // 8)


@dataclass(frozen=True)
class Sample:
    """How a code stream stores its pixels.

    Attributes:
        precision: bits of each.
        is_signed: whether the code stream itself says that they are signed.
        scan_start: JPEG: offset of the entropy-coded data.
        has_restarts: JPEG: whether restart markers cut those into intervals.
    """

    precision: int
    is_signed: bool = False
    scan_start: int = 0
    has_restarts: bool = False


def check_jpeg(stream: bytes, layout: PixelLayout) -> Sample:
    """Checks a JPEG code stream (ITU-T T.81): one grey scan of the header's size, ended by EOI.

    Raises:
        RefusedError: TRUNCATED where its end is missing, UNDECODABLE for everything else.
    """
    return _check_markers(stream, layout, _JPEG_FRAMES, _JPEG_MARKER)


def check_jpeg_ls(stream: bytes, layout: PixelLayout) -> Sample:
    """Checks a JPEG-LS code stream (ITU-T T.87), as `check_jpeg` does."""
    return _check_markers(stream, layout, _JPEG_LS_FRAMES, _JPEG_LS_MARKER)


def _check_markers(
    stream: bytes, layout: PixelLayout, frames: frozenset[int], marker_pattern: re.Pattern[bytes]
) -> Sample:
    if not stream.startswith(_START_OF_IMAGE):
        raise undecodable("must begin with an SOI marker")
    sample: Sample | None = None
    has_restarts = False
    at = len(_START_OF_IMAGE)
    while True:
        if at + 4 > len(stream):
            raise truncated("ends among its marker segments")
        prefix, marker, length = struct.unpack_from(">BBH", stream, at)
        if prefix != 0xFF:
            raise undecodable("must hold a marker where a segment ends")
        if marker == 0xFF:  # any number of fill bytes may stand before a marker
            at += 1
            continue
        if marker in _ALL_FRAMES:
            if marker not in frames or sample is not None:
                raise undecodable(
                    f"must hold one frame of a kind that DICOM allows. Received: SOF {marker:02X}"
                )
            sample = _read_frame(stream[at + 4 : at + 2 + length], layout)
        has_restarts |= marker == _RESTART_INTERVAL
        at += 2 + length
        if marker == _START_OF_SCAN:
            break
    if sample is None:
        raise undecodable("must hold a frame header before its scan")
    _check_scan_end(stream, marker_pattern.search(stream, at))
    return replace(sample, scan_start=at, has_restarts=has_restarts)


def _read_frame(segment: bytes, layout: PixelLayout) -> Sample:
    if len(segment) < 6:
        raise truncated("ends in its frame header")
    precision, rows, columns, components = struct.unpack_from(">BHHB", segment)
    check_shape(rows, columns, components, layout)
    return check_precision(Sample(precision), layout)


def _check_scan_end(stream: bytes, found: re.Match[bytes] | None) -> None:
    """A grey image is one scan: the marker behind it is EOI, and at most padding follows."""
    if found is None:
        raise truncated("has no EOI marker")
    if found.group()[-1:] != _END_OF_IMAGE[-1:]:
        raise undecodable(f"must end its only scan with EOI. Received: marker {found.group()[-1]:02X}")
    if stream[found.end() :].strip(b"\x00\xff"):
        raise undecodable("must end with EOI; other bytes follow it")


def check_rle(stream: memoryview, layout: PixelLayout) -> Sample:
    """Checks an RLE frame's header (PS3.5 section G.5): a segment for each byte of a pixel.

    Raises:
        RefusedError: TRUNCATED, UNDECODABLE, or WRONG_PIXEL_COUNT where so few bytes cannot make a frame.
    """
    if len(stream) < _RLE_HEADER.size:
        raise truncated("ends in its RLE header")
    count, *offsets = _RLE_HEADER.unpack_from(stream)
    expected = layout.bits_allocated // 8
    if count != expected:
        raise undecodable(f"must hold {expected} RLE segments. Received: {count}")
    used = offsets[:count]
    if used[0] != _RLE_HEADER.size or sorted(set(used)) != used:
        raise undecodable("must hold its RLE segments one after another")
    if used[-1] >= len(stream):
        raise truncated("ends before its last RLE segment")
    if layout.num_bytes > _MAX_RLE_RATIO * len(stream):
        message = f"{len(stream)} RLE bytes cannot make {layout.rows} x {layout.columns} pixels"
        raise RefusedError(RejectReason.WRONG_PIXEL_COUNT, message)
    return Sample(layout.bits_allocated, layout.is_signed)


def split_rle(stream: memoryview) -> list[memoryview]:
    """Cuts a checked RLE frame into its segments."""
    count, *offsets = _RLE_HEADER.unpack_from(stream)
    return [stream[start:stop] for start, stop in pairwise((*offsets[:count], len(stream)))]


def check_shape(rows: int, columns: int, components: int, layout: PixelLayout) -> None:
    """Refuses a code stream of another size than the header's, or of more than one component."""
    if (rows, columns, components) != (layout.rows, layout.columns, 1):
        raise undecodable(
            f"must hold {layout.rows} x {layout.columns} grey pixels, as the header says. "
            f"Received: {rows} x {columns} x {components}"
        )


def check_precision(sample: Sample, layout: PixelLayout) -> Sample:
    """Refuses a code stream whose pixels do not fit BitsAllocated, or leave their sign open."""
    if not 2 <= sample.precision <= layout.bits_allocated:
        raise undecodable(f"must hold 2 to {layout.bits_allocated} bits. Received: {sample.precision}")
    widths = (layout.bits_stored, layout.bits_allocated)
    if layout.is_signed and not sample.is_signed and sample.precision not in widths:
        # JPEG has no sign: it codes two's complement, and no other width says which bit the sign is.
        message = f"signed pixels of {layout.bits_stored} bits must not be coded in {sample.precision}"
        raise RefusedError(RejectReason.BAD_PIXEL_FORMAT, message)
    return sample


def undecodable(rule: str) -> RefusedError:
    """Returns what is raised of a damaged code stream."""
    return RefusedError(RejectReason.UNDECODABLE, f"the code stream {rule}")


def truncated(rule: str) -> RefusedError:
    """Returns what is raised of a code stream that is cut."""
    return RefusedError(RejectReason.TRUNCATED, f"the code stream {rule}")
