"""Where each frame's bytes lie in the pixel data, native or encapsulated (PS3.5 section A.4)."""

import struct
from bisect import bisect_left
from collections.abc import Sequence

from lumbar_tf.dicom.files.code_streams import PixelLayout
from lumbar_tf.dicom.files.headers import PixelElement
from lumbar_tf.dicom.reasons import RejectedError, RejectReason

#: A frame's bytes: (start, stop) of each fragment.
ByteRanges = tuple[tuple[int, int], ...]

#: 1 GiB in fragments of 64 KiB, as some archives cut them, is a quarter of this.
MAX_FRAGMENTS = 65_536

_ITEM = struct.Struct("<HHI")
_ITEM_TAG, _END_TAG = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
_JPEG_END = b"\xff\xd9"


def find_native_frames(
    body: bytes, pixels: PixelElement, layout: PixelLayout, num_frames: int
) -> tuple[ByteRanges, ...]:
    """Cuts uncompressed pixel data into frames.

    Raises:
        RejectedError: TRUNCATED where the value ends beyond `body`, WRONG_PIXEL_COUNT where its length is
            not that of the frames, DAMAGED_HEADER where it is encapsulated although the syntax is not.
    """
    if pixels.length is None:
        message = "uncompressed pixel data must have a length"
        raise RejectedError(RejectReason.DAMAGED_HEADER, message)
    if pixels.start + pixels.length > len(body):
        message = f"the pixel data end {pixels.start + pixels.length - len(body)} bytes beyond the file's end"
        raise RejectedError(RejectReason.TRUNCATED, message)
    expected = layout.num_bytes * num_frames
    if pixels.length - expected not in (0, expected % 2):  # a value is padded to an even length
        message = (
            f"{num_frames} frames of {layout.rows} x {layout.columns} must take {expected} bytes. "
            f"Received: {pixels.length}"
        )
        raise RejectedError(RejectReason.WRONG_PIXEL_COUNT, message)
    starts = range(pixels.start, pixels.start + expected, layout.num_bytes)
    return tuple(((start, start + layout.num_bytes),) for start in starts)


def find_encapsulated_frames(
    body: bytes, pixels: PixelElement, num_frames: int, extended_offsets: bytes = b""
) -> tuple[ByteRanges, ...]:
    """Finds each frame's fragments.

    Args:
        body: the bytes that hold the pixel data.
        pixels: where they lie.
        num_frames: NumberOfFrames.
        extended_offsets: the Extended Offset Table, where there is one.

    Raises:
        RejectedError: TRUNCATED where a fragment or the sequence's end is beyond `body`, UNDECODABLE where
            something else than items stands there, WRONG_PIXEL_COUNT where there are fewer fragments than
            frames, BAD_FRAMES where nothing tells which fragments belong together.
    """
    if pixels.length is not None:
        message = "encapsulated pixel data must have no length"
        raise RejectedError(RejectReason.DAMAGED_HEADER, message)
    (table_start, table_stop), *fragments = _list_items(body, pixels.start)
    if len(fragments) < num_frames:
        message = f"{num_frames} frames must have as many fragments. Received: {len(fragments)}"
        raise RejectedError(RejectReason.WRONG_PIXEL_COUNT, message)
    if num_frames == 1:
        return (tuple(fragments),)
    if len(fragments) == num_frames:
        return tuple((each,) for each in fragments)
    if len(extended_offsets) == 8 * num_frames:
        offsets = struct.unpack(f"<{num_frames}Q", extended_offsets)
    elif table_stop - table_start == 4 * num_frames:
        offsets = struct.unpack(f"<{num_frames}I", body[table_start:table_stop])
    else:
        return _group_by_end(body, fragments, num_frames)
    return _group_by_offset(fragments, offsets)


def read_frame_bytes(body: bytes, ranges: ByteRanges) -> bytes | memoryview:
    """Returns a frame's code stream: a view where it lies in one piece, else its fragments joined."""
    if len(ranges) == 1:
        start, stop = ranges[0]
        return memoryview(body)[start:stop]
    return b"".join(body[start:stop] for start, stop in ranges)


def _list_items(body: bytes, start: int) -> list[tuple[int, int]]:
    """Lists the items' values up to the sequence's end; the first is the offset table."""
    items: list[tuple[int, int]] = []
    while True:
        if start + _ITEM.size > len(body):
            raise RejectedError(RejectReason.TRUNCATED, "the pixel data end without a sequence delimiter")
        group, element, length = _ITEM.unpack_from(body, start)
        start += _ITEM.size
        if (group, element) == _END_TAG:
            break
        if (group, element) != _ITEM_TAG or len(items) > MAX_FRAGMENTS:
            message = f"the pixel data must be at most {MAX_FRAGMENTS} items and their end"
            raise RejectedError(RejectReason.UNDECODABLE, message)
        if start + length > len(body):
            message = f"a fragment of {length} bytes ends beyond the file's end"
            raise RejectedError(RejectReason.TRUNCATED, message)
        items.append((start, start + length))
        start += length
    if not items:
        raise RejectedError(RejectReason.WRONG_PIXEL_COUNT, "the pixel data hold no item")
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
            RejectReason.BAD_FRAMES, "the offset table must name fragments in ascending order"
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
        message = f"without an offset table, {len(fragments)} fragments cannot be told to {num_frames} frames"
        raise RejectedError(RejectReason.BAD_FRAMES, message)
    return tuple(frames)
