"""Headers of compressed code streams: JPEG, JPEG-LS, JPEG 2000 and RLE.

They are checked before a decoder allocates memory. Decoders trust the size in the code stream, and libjpeg
fills in the missing part of a truncated stream without an error. The size in the stream must therefore be
that of the DICOM header, and the stream must end with the end marker of its format.

HTJ2K has the headers of JPEG 2000. A kilobyte can demand gigabytes there: OpenJPEG allocates structures for
every tile, precinct and code block of the image before it reads the first byte of data, however few have any.
"""

import re
import struct
from dataclasses import dataclass, replace
from itertools import pairwise

from lumbar_tf.dicom.reasons import RejectedError, RejectReason

#: JPEG frames that DICOM uses for one grey component (ITU-T T.81 table B.1): baseline, extended sequential,
#: lossless, all with Huffman coding; and JPEG-LS (T.87 table C.1). Progressive JPEG is retired in DICOM.
_JPEG_FRAMES = frozenset((0xC0, 0xC1, 0xC3))
_JPEG_LS_FRAMES = frozenset((0xF7,))
_ALL_FRAMES = frozenset((*range(0xC0, 0xD0), 0xF7)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN, _RESTART_INTERVAL = 0xDA, 0xDD
_START_OF_IMAGE, _END_OF_IMAGE = b"\xff\xd8", b"\xff\xd9"
#: The next marker in entropy-coded data. T.81 stuffs a zero byte after FF and allows restart markers in the
#: data; T.87 (clause C.1) stuffs a zero bit, so the byte after FF is below 80.
_JPEG_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
_JPEG_LS_MARKER = re.compile(rb"\xff+[\x80-\xcf\xd8-\xfe]")

_RLE_HEADER = struct.Struct("<16I")
#: PackBits: two bytes expand to at most 128.
_MAX_RLE_RATIO = 64


@dataclass(frozen=True)
class PixelLayout:
    """Storage of the pixels as declared in the header (PS3.3 section C.7.6.3).

    Attributes:
        rows: height.
        columns: width.
        bits_allocated: 8 or 16, the size of a pixel's container.
        bits_stored: number of bits in use, the lowest of the container.
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
        """Size of an uncompressed frame, bytes."""
        return self.rows * self.columns * (self.bits_allocated // 8)

    @property
    def complement(self) -> int | None:
        """Sum of a stored value and its inverse; None for an image that is not inverted."""
        if not self.is_inverted:
            return None
        return -1 if self.is_signed else (1 << self.bits_stored) - 1


@dataclass(frozen=True)
class SampleFormat:
    """Sample format of a code stream.

    Attributes:
        precision: bits per sample.
        is_signed: whether the code stream declares signed samples.
        scan_start: offset of the entropy-coded data, JPEG only.
        has_restarts: whether restart markers divide these data into intervals, JPEG only.
        precision_at: offset of the byte that declares the precision, JPEG only.
    """

    precision: int
    is_signed: bool = False
    scan_start: int = 0
    has_restarts: bool = False
    precision_at: int = 0


def check_jpeg(stream: bytes, layout: PixelLayout) -> SampleFormat:
    """Checks a JPEG code stream (ITU-T T.81): one grey scan of the declared size, followed by EOI.

    Raises:
        RejectedError: TRUNCATED if the end is missing, UNDECODABLE otherwise.
    """
    return _check_markers(stream, layout, _JPEG_FRAMES, _JPEG_MARKER)


def check_jpeg_ls(stream: bytes, layout: PixelLayout) -> SampleFormat:
    """Checks a JPEG-LS code stream (ITU-T T.87), as `check_jpeg` does."""
    return _check_markers(stream, layout, _JPEG_LS_FRAMES, _JPEG_LS_MARKER)


def _check_markers(
    stream: bytes, layout: PixelLayout, frames: frozenset[int], marker_pattern: re.Pattern[bytes]
) -> SampleFormat:
    if not stream.startswith(_START_OF_IMAGE):
        raise undecodable("must begin with an SOI marker")
    sample: SampleFormat | None = None
    has_restarts = False
    at = len(_START_OF_IMAGE)
    while True:
        if at + 4 > len(stream):
            raise truncated("ends among its marker segments")
        prefix, marker, length = struct.unpack_from(">BBH", stream, at)
        if prefix != 0xFF:
            raise undecodable("must contain a marker after each segment")
        if marker == 0xFF:  # any number of fill bytes may precede a marker
            at += 1
            continue
        if marker in _ALL_FRAMES:
            if marker not in frames or sample is not None:
                raise undecodable(
                    f"must contain one frame of a type that DICOM allows. Received: SOF {marker:02X}"
                )
            sample = replace(
                _read_frame(stream[at + 4 : at + 2 + length], layout), precision_at=at + len(">BBH")
            )
        has_restarts |= marker == _RESTART_INTERVAL
        at += 2 + length
        if marker == _START_OF_SCAN:
            break
    if sample is None:
        raise undecodable("must contain a frame header before its scan")
    _check_scan_end(stream, marker_pattern.search(stream, at))
    return replace(sample, scan_start=at, has_restarts=has_restarts)


def _read_frame(segment: bytes, layout: PixelLayout) -> SampleFormat:
    if len(segment) < 6:
        raise truncated("ends in its frame header")
    precision, rows, columns, components = struct.unpack_from(">BHHB", segment)
    check_shape(rows, columns, components, layout)
    return check_precision(SampleFormat(precision), layout)


def _check_scan_end(stream: bytes, found: re.Match[bytes] | None) -> None:
    """Checks that EOI follows the only scan of a grey image, and that only padding follows EOI.

    PS3.5 section A.4 pads a fragment to an even length without a value for this byte. Longer padding must be
    blank.
    """
    if found is None:
        raise truncated("has no EOI marker")
    if found.group()[-1:] != _END_OF_IMAGE[-1:]:
        raise undecodable(f"must end its only scan with EOI. Received: marker {found.group()[-1]:02X}")
    padding = stream[found.end() :]
    if len(padding) > 1 and padding.strip(b"\x00\xff"):
        raise undecodable("must end with EOI; other bytes follow it")


def check_rle(stream: memoryview, layout: PixelLayout) -> SampleFormat:
    """Checks the header of an RLE frame (PS3.5 section G.5): one segment per byte of a pixel.

    Raises:
        RejectedError: TRUNCATED, UNDECODABLE, or WRONG_PIXEL_COUNT if there are too few bytes for a frame.
    """
    if len(stream) < _RLE_HEADER.size:
        raise truncated("ends in its RLE header")
    count, *offsets = _RLE_HEADER.unpack_from(stream)
    expected = layout.bits_allocated // 8
    if count != expected:
        raise undecodable(f"must contain {expected} RLE segments. Received: {count}")
    used = offsets[:count]
    if used[0] != _RLE_HEADER.size or sorted(set(used)) != used:
        raise undecodable("must contain its RLE segments one after another")
    if used[-1] >= len(stream):
        raise truncated("ends before its last RLE segment")
    if layout.num_bytes > _MAX_RLE_RATIO * len(stream):
        message = f"{len(stream)} RLE bytes cannot contain {layout.rows} x {layout.columns} pixels"
        raise RejectedError(RejectReason.WRONG_PIXEL_COUNT, message)
    return SampleFormat(layout.bits_allocated, layout.is_signed)


def split_rle(stream: memoryview) -> list[memoryview]:
    """Splits a checked RLE frame into its segments."""
    count, *offsets = _RLE_HEADER.unpack_from(stream)
    return [stream[start:stop] for start, stop in pairwise((*offsets[:count], len(stream)))]


def check_shape(rows: int, columns: int, components: int, layout: PixelLayout) -> None:
    """Rejects a code stream whose size differs from the header, or that has several components."""
    if (rows, columns, components) != (layout.rows, layout.columns, 1):
        raise undecodable(
            f"must contain {layout.rows} x {layout.columns} grey pixels, as in the header. "
            f"Received: {rows} x {columns} x {components}"
        )


def check_precision(sample: SampleFormat, layout: PixelLayout) -> SampleFormat:
    """Rejects samples that do not fit BitsAllocated, or whose sign bit is ambiguous."""
    if not 2 <= sample.precision <= layout.bits_allocated:
        raise undecodable(f"must contain 2 to {layout.bits_allocated} bits. Received: {sample.precision}")
    widths = (layout.bits_stored, layout.bits_allocated)
    if layout.is_signed and not sample.is_signed and sample.precision not in widths:
        # JPEG has no signed samples: it codes two's complement, and the sign bit is known for these widths
        # only.
        message = f"signed pixels of {layout.bits_stored} bits must not be coded in {sample.precision}"
        raise RejectedError(RejectReason.BAD_PIXEL_FORMAT, message)
    return sample


def undecodable(rule: str) -> RejectedError:
    """Returns the error for a damaged code stream."""
    return RejectedError(RejectReason.UNDECODABLE, f"the code stream {rule}")


def truncated(rule: str) -> RejectedError:
    """Returns the error for a truncated code stream."""
    return RejectedError(RejectReason.TRUNCATED, f"the code stream {rule}")


_J2K_START = b"\xff\x4f\xff\x51"
#: SIZ of one component (T.800 table A.9): Lsiz, Rsiz, image and its offset, tile and its offset, Csiz, Ssiz,
#: XRsiz, YRsiz.
_J2K_SIZE = struct.Struct(">HHIIIIIIIIHBBB")
#: OpenJPEG allocates 7 KB per tile, 0.6 KB per precinct and 0.3 KB per code block before it reads any.
#: 1,024 x 1,024 pixels in the usual blocks of 64 x 64 have 340 of them in all.
_MAX_TILES = 4096
_MAX_PARTS = 1 << 17
#: Marker segments (T.800 table A.2): coding style and its override for a component, tile-part, data.
_J2K_STYLES, _J2K_TILE_PART, _J2K_DATA, _J2K_END = (0xFF52, 0xFF53), 0xFF90, 0xFF93, 0xFFD9
_FIRST_MARKER = 0xFF00
_TILE_PART_BYTES = 12
#: Four for each possible tile.
_MAX_SEGMENTS = 4 * _MAX_TILES
_MAX_LEVELS, _MAX_BLOCK_EXPONENTS = 32, 12

#: First box of a JP2 file (T.800 section I.5.1). DICOM contains the bare code stream (PS3.5 section A.4.4),
#: but some archives store the whole file.
JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
_MAX_BOXES = 64
_BOX, _LONG_BOX = struct.Struct(">I4s"), struct.Struct(">I4sQ")


def unwrap_jp2(stream: bytes) -> bytes:
    """Returns the code stream in a JP2 file (T.800 annex I); any other stream is returned unchanged.

    Raises:
        RejectedError: UNDECODABLE if the file has no code stream, or has a palette.
    """
    if not stream.startswith(JP2_SIGNATURE):
        return stream
    at = 0
    for _ in range(_MAX_BOXES):
        if at + _BOX.size > len(stream):
            break
        length, kind = _BOX.unpack_from(stream, at)
        start = at + _BOX.size
        if length == 1 and at + _LONG_BOX.size <= len(stream):
            start = at + _LONG_BOX.size
            length = _LONG_BOX.unpack_from(stream, at)[2]
        end = at + length if length else len(stream)  # a length of 0 means up to the end
        if end < start:
            break
        if kind == b"jp2h" and b"pclr" in stream[start:end]:
            raise undecodable("must not have a palette")
        if kind == b"jp2c":
            return stream[start:end]
        at = end
    raise undecodable("must be in a box of its JP2 file")


def check_jpeg_2000(stream: bytes, layout: PixelLayout) -> SampleFormat:
    """Checks a JPEG 2000 code stream's SIZ segment (ITU-T T.800 section A.5.1); HTJ2K has the same.

    Raises:
        RejectedError: TRUNCATED or UNDECODABLE.
    """
    if not stream.startswith(_J2K_START):
        raise undecodable("must begin with SOC and SIZ markers")
    if len(stream) < len(_J2K_START) + _J2K_SIZE.size:
        raise truncated("ends in its SIZ segment")
    (
        _,
        _,
        right,
        bottom,
        left,
        top,
        tile_width,
        tile_height,
        tile_left,
        tile_top,
        components,
        depth,
        *steps,
    ) = _J2K_SIZE.unpack_from(stream, len(_J2K_START))
    check_shape(bottom - top, right - left, components, layout)
    if steps != [1, 1] or tile_width == 0 or tile_height == 0:
        raise undecodable("must contain one component of full size, in tiles")
    tiles = -(-(right - tile_left) // tile_width) * -(-(bottom - tile_top) // tile_height)
    if not 1 <= tiles <= _MAX_TILES:
        raise undecodable(f"must contain 1 to {_MAX_TILES} tiles. Received: {tiles}")
    _check_coding_styles(stream, layout, tiles)
    return check_precision(SampleFormat((depth & 0x7F) + 1, bool(depth & 0x80)), layout)


def _check_coding_styles(stream: bytes, layout: PixelLayout, tiles: int) -> None:
    """Checks every coding style in the main header and in the headers of the tile-parts."""
    at = len(_J2K_START) - 2
    tile_part_end: int | None = None
    for _ in range(_MAX_SEGMENTS):
        if at + 4 > len(stream):
            return  # the decoder reports the missing end
        marker, length = struct.unpack_from(">HH", stream, at)
        if marker == _J2K_END:
            return
        if marker < _FIRST_MARKER:
            raise undecodable("must contain a marker after each segment")
        if marker == _J2K_DATA:
            if not tile_part_end or tile_part_end <= at:  # a length of 0 means up to the end
                return
            at = tile_part_end
            continue
        if marker == _J2K_TILE_PART and at + _TILE_PART_BYTES <= len(stream):
            (size,) = struct.unpack_from(">I", stream, at + 6)
            tile_part_end = at + size if size else None
        elif marker in _J2K_STYLES:
            _check_parts(stream[at : at + 2 + length], marker == _J2K_STYLES[0], layout, tiles)
        at += 2 + length
    raise undecodable(f"must contain at most {_MAX_SEGMENTS} marker segments")


def _check_parts(segment: bytes, is_default: bool, layout: PixelLayout, tiles: int) -> None:
    """Rejects a coding style (T.800 sections A.6.1, A.6.2) with too many precincts and code blocks."""
    # COD has progression, layers and transform between style and levels; COC has a component before the
    # style.
    style_at, levels_at = (4, 9) if is_default else (5, 6)
    if len(segment) < levels_at + 5:
        raise truncated("ends in its coding style")
    has_precincts, levels = segment[style_at] & 1, segment[levels_at]
    width, height = segment[levels_at + 1] + 2, segment[levels_at + 2] + 2  # exponents of two
    if levels > _MAX_LEVELS or width + height > _MAX_BLOCK_EXPONENTS:
        raise undecodable("must contain at most 32 levels, and code blocks of at most 4,096 pixels")
    sizes = segment[levels_at + 5 :] if has_precincts else b"\xff" * (levels + 1)
    if len(sizes) < levels + 1:
        raise truncated("ends in its coding style")
    parts = layout.rows * layout.columns >> (width + height)
    for level, size in zip(range(levels, -1, -1), sizes):
        parts += tiles + (layout.columns >> level + (size & 15)) * (layout.rows >> level + (size >> 4))
        parts += (layout.columns >> level + (size & 15)) + (layout.rows >> level + (size >> 4))
    if parts > _MAX_PARTS:
        raise undecodable(f"must contain at most {_MAX_PARTS} precincts and code blocks. Received: {parts}")
