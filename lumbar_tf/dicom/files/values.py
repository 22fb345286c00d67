"""Header values from the top level or the functional groups, checked on reading."""

import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from lumbar_tf.dicom.identifiers import is_safe_id
from lumbar_tf.dicom.reasons import RejectedError, RejectReason

#: Largest Integer String (PS3.5 section 6.2).
_LARGEST_INTEGER = 2**31 - 1


def find_value(dataset: Dataset, keyword: str, frame: int = 0, *, top_level: bool = True) -> Any | None:
    """Returns the value of an attribute for one frame, from the top level or the functional groups.

    Args:
        dataset: header of a file.
        keyword: a DICOM keyword, such as `EchoTime`.
        frame: index of the frame, from 0.
        top_level: whether the top level is searched first.

    Returns:
        The value at the top level, else in the frame's own functional groups, else in the shared ones, in any
        of their macros; None if it is absent or empty.

    Raises:
        RejectedError: DAMAGED_HEADER if the value cannot be parsed.
    """
    try:
        if top_level:
            value = read_value(dataset, keyword)
            if value is not None:
                return value
        for part in functional_groups(dataset, frame):
            value = read_value(part, keyword)
            if value is not None:
                return value
    except Exception as error:  # pydicom parses values on access, and a damaged value may raise anything
        message = f"{keyword} cannot be parsed ({type(error).__name__})"
        raise RejectedError(RejectReason.DAMAGED_HEADER, message) from None
    return None


def read_value(dataset: Dataset, keyword: str) -> Any | None:
    """Returns a value of the dataset itself; None if it is absent or empty.

    pydicom constructs and validates an object for every element, which takes as long as decoding a small
    slice. Plain values of the expected VR are parsed here instead; pydicom parses all others.

    Raises:
        ValueError: a number cannot be parsed. pydicom may raise other errors.
    """
    tag, vr = _entry(keyword)
    element = dataset.get_item(tag)
    if element is None:
        return None
    parse = _PARSERS.get(vr)
    if parse is not None and isinstance(element, RawDataElement) and element.VR in (vr, None):
        # Not `contextlib.suppress`, which takes as long as parsing.
        try:
            return parse(element.value or b"", element.is_little_endian)
        except _NotPlainError:
            pass
    value = dataset[tag].value
    return None if value is None or value == "" or value == [] else value


@cache
def _entry(keyword: str) -> tuple[BaseTag, str]:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"`keyword` must be a DICOM keyword. Received: {keyword!r}.")
    return BaseTag(tag), dictionary_VR(tag)


class _NotPlainError(Exception):
    """A value that pydicom must parse: it has several parts or non-ASCII characters."""


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
    if b"_" in value:  # Python's digit separator, which pydicom also accepts
        raise ValueError("a number must be digits")
    numbers = [float(number) for number in value.rstrip(b" \0").split(b"\\")]
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


def functional_groups(dataset: Dataset, frame: int | None, *, has_shared: bool = True) -> Iterator[Dataset]:
    """Yields the functional groups of a frame, its own before the shared ones, each with its macros.

    Args:
        dataset: header of a file.
        frame: index of the frame, from 0; None for the shared groups only.
        has_shared: whether the shared groups are wanted.
    """
    groups: list[Dataset] = []
    if frame is not None:
        groups.extend((read_value(dataset, "PerFrameFunctionalGroupsSequence") or ())[frame : frame + 1])
    for group in groups:
        yield from (group, *_macros(group))
    if has_shared:
        for group in read_value(dataset, "SharedFunctionalGroupsSequence") or ():
            yield from (group, *_macros(group))


def _macros(group: Dataset) -> Iterator[Dataset]:
    """Yields the items of the standard sequences; Philips' private ones repeat tags with other values."""
    for tag in sorted(group.keys()):
        if not tag.is_private and group[tag].VR == "SQ":
            yield from group[tag].value


def read_integer(dataset: Dataset, keyword: str, default: int | None = None) -> int:
    """Returns a top-level integer.

    Raises:
        RejectedError: DAMAGED_HEADER if it is not an integer, or is absent and there is no default.
    """
    value = read_value(dataset, keyword)
    value = default if value is None else value
    if not isinstance(value, int) or abs(value) > _LARGEST_INTEGER:
        received = "nothing" if value is None else f"a {type(value).__name__}"
        message = f"{keyword} must be one integer. Received: {received}"
        raise RejectedError(RejectReason.DAMAGED_HEADER, message)
    return int(value)


def read_numbers(value: Any, count: int, name: str, reason: RejectReason) -> tuple[float, ...]:
    """Returns the numbers of a value.

    Args:
        value: result of `find_value`.
        count: required number of numbers.
        name: name of the attribute, for the message.
        reason: reason code of the error.

    Raises:
        RejectedError: there are more or fewer numbers, or one is not finite.

    >>> read_numbers([1, "2.5"], 2, "PixelSpacing", RejectReason.BAD_SPACING)
    (1.0, 2.5)
    """
    values = [value] if isinstance(value, str | int | float) else value or ()
    try:
        numbers = tuple(float(item) for item in values)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise RejectedError(reason, f"{name} must be {count} finite numbers")
    return numbers


def read_uid(dataset: Dataset, keyword: str) -> str:
    """Returns a top-level UID, "" if it is absent.

    Raises:
        RejectedError: BAD_UID if it has characters that are unsafe in a path, or more than 64 characters.
    """
    value = read_value(dataset, keyword) or ""
    if not isinstance(value, str) or (value and not is_safe_id(value)):
        message = f"{keyword} must be at most 64 letters, digits, single dots, dashes and underscores"
        raise RejectedError(RejectReason.BAD_UID, message)
    return str(value)
