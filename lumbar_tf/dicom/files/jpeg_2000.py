"""What a JPEG 2000 code stream says of itself, checked before OpenJPEG takes memory for it.

HTJ2K has the same headers. A kilobyte can ask for gigabytes here: each tile, precinct and code block of the
image gets its structures before the first byte of data is read, however few of them have any.
"""

import struct

from lumbar_tf.dicom.files.streams import (
    PixelLayout,
    Sample,
    check_precision,
    check_shape,
    truncated,
    undecodable,
)

_J2K_START = b"\xff\x4f\xff\x51"
#: SIZ of one component (T.800 table A.9): Lsiz, Rsiz, image and its offset, tile and its offset, Csiz, Ssiz,
#: XRsiz, YRsiz.
_J2K_SIZE = struct.Struct(">HHIIIIIIIIHBBB")
#: OpenJPEG takes memory for all tiles, precincts and code blocks before it reads one: 7 KB, 0.6 KB and 0.3 KB
#: each. 1,024 x 1,024 pixels in the usual blocks of 64 x 64 are 340 in all.
_MAX_TILES = 4096
_MAX_PARTS = 1 << 17
#: Marker segments (T.800 table A.2): the coding style and its exception for a component, tile-part, data.
_J2K_STYLES, _J2K_TILE_PART, _J2K_DATA, _J2K_END = (0xFF52, 0xFF53), 0xFF90, 0xFF93, 0xFFD9
_FIRST_MARKER = 0xFF00
_TILE_PART_BYTES = 12
#: Four for each tile that may be there.
_MAX_SEGMENTS = 4 * _MAX_TILES
_MAX_LEVELS, _MAX_BLOCK_EXPONENTS = 32, 12


def check_jpeg_2000(stream: bytes, layout: PixelLayout) -> Sample:
    """Checks a JPEG 2000 code stream's SIZ segment (ITU-T T.800 section A.5.1); HTJ2K has the same.

    Raises:
        RefusedError: TRUNCATED or UNDECODABLE.
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
        raise undecodable("must hold a component of full size in tiles")
    tiles = -(-(right - tile_left) // tile_width) * -(-(bottom - tile_top) // tile_height)
    if not 1 <= tiles <= _MAX_TILES:
        raise undecodable(f"must hold 1 to {_MAX_TILES} tiles. Received: {tiles}")
    _check_coding_styles(stream, layout, tiles)
    return check_precision(Sample((depth & 0x7F) + 1, bool(depth & 0x80)), layout)


def _check_coding_styles(stream: bytes, layout: PixelLayout, tiles: int) -> None:
    """Walks the headers of image and tile-parts, and counts what each coding style cuts the image into."""
    at = len(_J2K_START) - 2
    tile_part_end: int | None = None
    for _ in range(_MAX_SEGMENTS):
        if at + 4 > len(stream):
            return  # the end is the decoder's to miss
        marker, length = struct.unpack_from(">HH", stream, at)
        if marker == _J2K_END:
            return
        if marker < _FIRST_MARKER:
            raise undecodable("must hold a marker where a segment ends")
        if marker == _J2K_DATA:
            if not tile_part_end or tile_part_end <= at:  # a length of 0: up to the end
                return
            at = tile_part_end
            continue
        if marker == _J2K_TILE_PART and at + _TILE_PART_BYTES <= len(stream):
            (size,) = struct.unpack_from(">I", stream, at + 6)
            tile_part_end = at + size if size else None
        elif marker in _J2K_STYLES:
            _check_parts(stream[at : at + 2 + length], marker == _J2K_STYLES[0], layout, tiles)
        at += 2 + length
    raise undecodable(f"must hold at most {_MAX_SEGMENTS} marker segments")


def _check_parts(segment: bytes, is_default: bool, layout: PixelLayout, tiles: int) -> None:
    """Refuses a coding style (T.800 sections A.6.1, A.6.2) of too many precincts and code blocks."""
    # COD has progression, layers and transform between the style and the levels, COC a component before it.
    style_at, levels_at = (4, 9) if is_default else (5, 6)
    if len(segment) < levels_at + 5:
        raise truncated("ends in its coding style")
    has_precincts, levels = segment[style_at] & 1, segment[levels_at]
    width, height = segment[levels_at + 1] + 2, segment[levels_at + 2] + 2  # exponents of two
    if levels > _MAX_LEVELS or width + height > _MAX_BLOCK_EXPONENTS:
        raise undecodable("must hold at most 32 levels, and code blocks of at most 4,096 pixels")
    sizes = segment[levels_at + 5 :] if has_precincts else b"\xff" * (levels + 1)
    if len(sizes) < levels + 1:
        raise truncated("ends in its coding style")
    parts = layout.rows * layout.columns >> (width + height)
    for level, size in zip(range(levels, -1, -1), sizes):
        parts += tiles + (layout.columns >> level + (size & 15)) * (layout.rows >> level + (size >> 4))
        parts += (layout.columns >> level + (size & 15)) + (layout.rows >> level + (size >> 4))
    if parts > _MAX_PARTS:
        raise undecodable(f"must hold at most {_MAX_PARTS} precincts and code blocks. Received: {parts}")
