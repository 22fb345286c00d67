"""Byte ranges of the frames in native and encapsulated pixel data (PS3.5 section A.4)."""

import struct
from bisect import bisect_left
from collections.abc import Sequence

from lumbar_tf.dicom.files.code_streams import PixelLayout
from lumbar_tf.dicom.files.headers import PixelElement
from lumbar_tf.dicom.reasons import RejectedError, RejectReason

#: Bytes of one frame: (start, stop) of each fragment.
ByteRanges = tuple[tuple[int, int], ...]

#: Blank bytes behind the last frame, up to the size that some archives round up to. PS3.5 allows one byte.
MAX_SURPLUS_BYTES = 128

#: Four times the number of 64 KiB fragments, which some archives write, in 1 GiB.
MAX_FRAGMENTS = 65_536

_ITEM = struct.Struct("<HHI")
_ITEM_TAG, _END_TAG = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
_JPEG_END = b"\xff\xd9"


def find_native_frames(
    body: bytes, pixels: PixelElement, layout: PixelLayout, num_frames: int
) -> tuple[ByteRanges, ...]:
    """Finds the frames in uncompressed pixel data.

    Raises:
        RejectedError: TRUNCATED if the value ends beyond `body`, WRONG_PIXEL_COUNT if its length differs from
            that of the frames, DAMAGED_HEADER if it is encapsulated although the syntax is native.
    """
    if pixels.length is None:
        message = "uncompressed pixel data must have a defined length"
        raise RejectedError(RejectReason.DAMAGED_HEADER, message)
    if pixels.start + pixels.length > len(body):
        message = f"the pixel data end {pixels.start + pixels.length - len(body)} bytes beyond the file's end"
        raise RejectedError(RejectReason.TRUNCATED, message)
    expected = layout.num_bytes * num_frames
    if not _is_padding(body, pixels.start, expected, pixels.length, layout):
        message = (
            f"{num_frames} frames of {layout.rows} x {layout.columns} must take {expected} bytes. "
            f"Received: {pixels.length}"
        )
        raise RejectedError(RejectReason.WRONG_PIXEL_COUNT, message)
    starts = range(pixels.start, pixels.start + expected, layout.num_bytes)
    return tuple(((start, start + layout.num_bytes),) for start in starts)


def _is_padding(body: bytes, start: int, num_expected: int, num_bytes: int, layout: PixelLayout) -> bool:
    """Returns whether the bytes behind the last frame make the length even, or are few and blank."""
    surplus = num_bytes - num_expected
    if surplus in (0, num_expected % 2):
        return True
    most = min(MAX_SURPLUS_BYTES, layout.num_bytes - 1)  # less than another frame
    return 0 < surplus <= most and not any(body[start + num_expected : start + num_bytes])


def find_encapsulated_frames(
    body: bytes, pixels: PixelElement, num_frames: int, extended_offsets: bytes = b""
) -> tuple[ByteRanges, ...]:
    """Finds the fragments of each frame in encapsulated pixel data.

    Args:
        body: bytes that contain the pixel data.
        pixels: position of the pixel data in `body`.
        num_frames: NumberOfFrames.
        extended_offsets: the Extended Offset Table, empty if there is none.

    Raises:
        RejectedError: DAMAGED_HEADER if the length is defined, TRUNCATED if a fragment or the delimiter is
            beyond `body`, UNDECODABLE if anything other than items follows, WRONG_PIXEL_COUNT if there are
            fewer fragments than frames, BAD_FRAMES if the fragments cannot be assigned to frames.
    """
    if pixels.length is not None:
        message = "encapsulated pixel data must have an undefined length"
        raise RejectedError(RejectReason.DAMAGED_HEADER, message)
    (table_start, table_stop), *fragments = _list_items(body, pixels.start)
    if len(fragments) < num_frames:
        message = f"{num_frames} frames must have at least as many fragments. Received: {len(fragments)}"
        raise RejectedError(RejectReason.WRONG_PIXEL_COUNT, message)
    if num_frames == 1:
        return (tuple(fragments),)
    if len(fragments) == num_frames:
        return tuple((fragment,) for fragment in fragments)
    if len(extended_offsets) == 8 * num_frames:
        offsets = struct.unpack(f"<{num_frames}Q", extended_offsets)
    elif table_stop - table_start == 4 * num_frames:
        offsets = struct.unpack(f"<{num_frames}I", body[table_start:table_stop])
    else:
        return _group_by_end(body, fragments, num_frames)
    return _group_by_offset(fragments, offsets)


def read_frame_bytes(body: bytes, ranges: ByteRanges) -> bytes | memoryview:
    """Returns the code stream of a frame: a view if it is contiguous, else its joined fragments."""
    if len(ranges) == 1:
        start, stop = ranges[0]
        return memoryview(body)[start:stop]
    return b"".join(body[start:stop] for start, stop in ranges)


def _list_items(body: bytes, start: int) -> list[tuple[int, int]]:
    """Lists the values of the items up to the sequence delimiter; the first is the offset table."""
    items: list[tuple[int, int]] = []
    while True:
        if start + _ITEM.size > len(body):
            raise RejectedError(RejectReason.TRUNCATED, "the pixel data end without a sequence delimiter")
        group, element, length = _ITEM.unpack_from(body, start)
        start += _ITEM.size
        if (group, element) == _END_TAG:
            break
        if (group, element) != _ITEM_TAG or len(items) > MAX_FRAGMENTS:
            message = f"the pixel data must consist of at most {MAX_FRAGMENTS} items and a sequence delimiter"
            raise RejectedError(RejectReason.UNDECODABLE, message)
        if start + length > len(body):
            message = f"a fragment of {length} bytes ends beyond the file's end"
            raise RejectedError(RejectReason.TRUNCATED, message)
        items.append((start, start + length))
        start += length
    if not items:
        raise RejectedError(RejectReason.WRONG_PIXEL_COUNT, "the pixel data contain no item")
    return items


def _group_by_offset(fragments: Sequence[tuple[int, int]], offsets: Sequence[int]) -> tuple[ByteRanges, ...]:
    """Groups fragments by an offset table, which counts from the first fragment's item tag."""
    starts = [start - fragments[0][0] for start, _ in fragments]
    firsts = [bisect_left(starts, offset) for offset in offsets]
    is_sound = firsts[0] == 0 and all(
        first < len(starts) and starts[first] == offset for first, offset in zip(firsts, offsets)
    )
    if not is_sound or sorted(set(firsts)) != firsts:
        raise RejectedError(
            RejectReason.BAD_FRAMES, "the offset table must list fragments in ascending order"
        )
    return tuple(tuple(fragments[first:last]) for first, last in zip(firsts, [*firsts[1:], len(fragments)]))


def _group_by_end(
    body: bytes, fragments: Sequence[tuple[int, int]], num_frames: int
) -> tuple[ByteRanges, ...]:
    """Groups fragments by the marker that ends every JPEG and JPEG 2000 code stream."""
    frames: list[ByteRanges] = []
    first = 0
    for index, (start, stop) in enumerate(fragments):
        # At most one padding byte follows the marker, to make the length even.
        if _JPEG_END in body[max(start, stop - 3) : stop]:
            frames.append(tuple(fragments[first : index + 1]))
            first = index + 1
    if len(frames) != num_frames or first != len(fragments):
        message = (
            f"without an offset table, {len(fragments)} fragments cannot be assigned to {num_frames} frames"
        )
        raise RejectedError(RejectReason.BAD_FRAMES, message)
    return tuple(frames)
