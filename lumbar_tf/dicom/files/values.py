"""Values of a header, wherever they stand, checked as they are read."""

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from lumbar_tf.dicom.identifiers import is_safe_id
from lumbar_tf.dicom.reasons import RejectedError, RejectReason

#: An Integer String is at most this (PS3.5 section 6.2).
_LARGEST_INTEGER = 2**31 - 1


def find_value(dataset: Dataset, keyword: str, frame: int = 0, *, top_level: bool = True) -> Any | None:
    """Returns an attribute's value for one frame, wherever the file keeps it.

    Args:
        dataset: a file's header.
        keyword: a DICOM keyword, such as `EchoTime`.
        frame: the frame's index, from 0.
        top_level: whether to look at the top level first.

    Returns:
        The value at the top level, else in the frame's own functional groups, else in the shared ones,
        in whichever macro it is; None where it is nowhere, or empty.

    Raises:
        RejectedError: DAMAGED_HEADER, where it cannot be parsed.
    """
    try:
        if top_level:
            value = read_value(dataset, keyword)
            if value is not None:
                return value
        for group in _groups(dataset, frame):
            for place in (group, *_macros(group)):
                value = read_value(place, keyword)
                if value is not None:
                    return value
    except Exception as error:  # values are parsed when they are asked for, and may be anything
        message = f"{keyword} cannot be parsed ({type(error).__name__})"
        raise RejectedError(RejectReason.DAMAGED_HEADER, message) from None
    return None


def read_value(dataset: Dataset, keyword: str) -> Any | None:
    """Returns a value of the dataset itself; None where it is absent or empty.

    pydicom makes an object of many checks of each element, which takes as long as the pixels of a small
    slice do. Plain values of the expected VR are parsed here instead; all else is left to pydicom.

    Raises:
        ValueError: a number cannot be parsed; or whatever pydicom raises.
    """
    tag, vr = _entry(keyword)
    element = dataset.get_item(tag)
    if element is None:
        return None
    if isinstance(element, RawDataElement) and element.VR in (vr, None) and vr in _PARSERS:
        with suppress(_NotPlainError):
            return _PARSERS[vr](element.value or b"", element.is_little_endian)
    value = dataset[tag].value
    return None if value is None or value == "" or value == [] else value


@cache
def _entry(keyword: str) -> tuple[BaseTag, str]:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"`keyword` must be a DICOM keyword. Received: {keyword!r}.")
    return BaseTag(tag), dictionary_VR(tag)


class _NotPlainError(Exception):
    """A value that is left to pydicom: of several parts, or in another alphabet."""


def _parse_short(value: bytes, is_little_endian: bool) -> int | None:
    if len(value) != 2:
        raise _NotPlainError
    return int.from_bytes(value, "little" if is_little_endian else "big")


def _parse_text(value: bytes, is_little_endian: bool) -> str | None:
    if b"\\" in value or b"\x1b" in value or not value.isascii():
        raise _NotPlainError
    return value.decode("ascii").strip(" \0") or None


def _parse_decimals(value: bytes, is_little_endian: bool) -> float | list[float] | None:
    if not value.strip(b" \0"):
        return None
    if b"_" in value:  # Python's digit separator, which pydicom takes too
        raise ValueError("a number must be digits")
    numbers = [float(each) for each in value.rstrip(b" \0").split(b"\\")]
    return numbers[0] if len(numbers) == 1 else numbers


def _parse_integer(value: bytes, is_little_endian: bool) -> int | None:
    number = _parse_decimals(value, is_little_endian)
    if number is None:
        return None
    if not isinstance(number, float) or not number.is_integer():
        raise ValueError("a number must be whole")
    return int(number)


_PARSERS: dict[str, Callable[[bytes, bool], Any]] = {
    "US": _parse_short,
    "DS": _parse_decimals,
    "IS": _parse_integer,
    **dict.fromkeys(("CS", "LO", "UI"), _parse_text),
}


def _groups(dataset: Dataset, frame: int) -> Iterator[Dataset]:
    """The functional groups of a frame, its own first."""
    own = read_value(dataset, "PerFrameFunctionalGroupsSequence") or ()
    if frame < len(own):
        yield own[frame]
    yield from read_value(dataset, "SharedFunctionalGroupsSequence") or ()


def _macros(group: Dataset) -> Iterator[Dataset]:
    """The items of a group's standard sequences. Philips' private ones repeat tags with other values."""
    for tag in sorted(group.keys()):
        if not tag.is_private and group[tag].VR == "SQ":
            yield from group[tag].value


def read_integer(dataset: Dataset, keyword: str, default: int | None = None) -> int:
    """Returns a top-level whole number.

    Raises:
        RejectedError: DAMAGED_HEADER, where it is absent (and there is no default) or no whole number.
    """
    value = read_value(dataset, keyword)
    value = default if value is None else value
    if not isinstance(value, int) or abs(value) > _LARGEST_INTEGER:
        received = "nothing" if value is None else f"a {type(value).__name__}"
        message = f"{keyword} must be one whole number. Received: {received}"
        raise RejectedError(RejectReason.DAMAGED_HEADER, message)
    return int(value)


def read_numbers(value: Any, count: int, name: str, reason: RejectReason) -> tuple[float, ...]:
    """Returns a value's numbers.

    Args:
        value: what `find_value` found.
        count: how many there must be.
        name: the attribute, for the message.
        reason: the code of the refusal.

    Raises:
        RejectedError: there are more or fewer, or one is not finite.

    >>> read_numbers([1, "2.5"], 2, "PixelSpacing", RejectReason.BAD_SPACING)
    (1.0, 2.5)
    """
    values = [value] if isinstance(value, str | int | float) else value or ()
    try:
        numbers = tuple(float(each) for each in values)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise RejectedError(reason, f"{name} must hold {count} finite numbers")
    return numbers


def read_uid(dataset: Dataset, keyword: str) -> str:
    """Returns a top-level UID, "" where it is absent.

    Raises:
        RejectedError: BAD_UID, where it holds what could mean something in a path, or is longer than 64.
    """
    value = read_value(dataset, keyword) or ""
    if not isinstance(value, str) or (value and not is_safe_id(value)):
        message = f"{keyword} must be at most 64 letters, digits, single dots, dashes and underscores"
        raise RejectedError(RejectReason.BAD_UID, message)
    return str(value)
