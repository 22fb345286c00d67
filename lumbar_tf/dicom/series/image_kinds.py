"""Kinds of images that one acquisition yields: complex component, Dixon part, diffusion weighting.

The rules are those of DICOM PS3.3 (C.8.3.1.1.1 ImageType of MR images, C.8.13.3.1.1 FrameType and
ComplexImageComponent) and of the vendors: Siemens marks the Dixon parts in ImageType and by a suffix of the
description, Philips stores all parts in one series with codes of one or two letters, GE uses a prefix of the
description and a private element for the complex component, and Canon ImageType.
"""

import math
import re
from collections.abc import Iterable, Sequence
from enum import Enum

from pydicom.dataset import Dataset


class Component(Enum):
    """Component of the complex signal (ComplexImageComponent). Only magnitude images are graded."""

    MAGNITUDE = "magnitude"
    PHASE = "phase"
    REAL = "real part"
    IMAGINARY = "imaginary part"


class DixonPart(Enum):
    """Image of a Dixon family. The in-phase image is the plain one, as if acquired without the method."""

    IN_PHASE = "in phase"
    OPPOSED_PHASE = "opposed phase"
    WATER = "water only"
    FAT = "fat only"


_COMPONENT_CODES = {
    "P": Component.PHASE,
    "PHASE": Component.PHASE,
    "VELOCITY": Component.PHASE,
    "R": Component.REAL,
    "REAL": Component.REAL,
    "I": Component.IMAGINARY,
    "IMAG": Component.IMAGINARY,
    "IMAGINARY": Component.IMAGINARY,
}
#: GE's image type in the raw data, (0043,102F) of the block GEMS_PARM_01.
_GE_COMPONENTS = {1: Component.PHASE, 2: Component.REAL, 3: Component.IMAGINARY}
#: Codes in ImageType from value 3 on. Single letters are Philips'.
_DIXON_CODES = {
    **dict.fromkeys(("IN_PHASE", "INPHASE", "IP", "IN"), DixonPart.IN_PHASE),
    **dict.fromkeys(
        ("OPP_PHASE", "OPPOSED_PHASE", "OUT_PHASE", "OUTPHASE", "OUT_OF_PHASE", "OPP", "OP", "OOP", "OUT"),
        DixonPart.OPPOSED_PHASE,
    ),
    **dict.fromkeys(("WATER", "WATER_ONLY", "W"), DixonPart.WATER),
    **dict.fromkeys(("FAT", "FAT_ONLY", "F"), DixonPart.FAT),
}
#: If codes contradict each other, the part that must not be graded decides.
_DIXON_ORDER = (DixonPart.FAT, DixonPart.OPPOSED_PHASE, DixonPart.WATER, DixonPart.IN_PHASE)
_DIXON_FAMILY = re.compile(r"dixon|(?<![a-z])(?:ideal|flex|wfs|wfop|fatwater)(?![a-z])")
#: `WATER: Ax T2 Flex`, `InPhase: Sag T2 IDEAL`.
_DIXON_PREFIX = re.compile(r"\s*(in ?phase|out ?phase|opp ?phase|water|fat|[wf]|ip|op)\s*:")
#: `t2_tse_dixon_sag_opp`, `t2_tse_dixon_sag_W_ND`.
_DIXON_SUFFIX = re.compile(r"[_ -](in|opp|out|w|f|water|fat|ip|op)(?:[_ -](?:nd|dis[23]d|norm|fil))*\s*")
_IN_PHASE_WORDS = re.compile(r"(?<![a-z])in[ _-]?phase")
_OPPOSED_WORDS = re.compile(r"(?<![a-z])(?:out[ _-]?(?:of[ _-]?)?phase|opp(?:osed?)?[ _-]?phase|opposed)")
_DIXON_WORDS = {
    "in": DixonPart.IN_PHASE,
    "ip": DixonPart.IN_PHASE,
    "opp": DixonPart.OPPOSED_PHASE,
    "out": DixonPart.OPPOSED_PHASE,
    "op": DixonPart.OPPOSED_PHASE,
    "w": DixonPart.WATER,
    "f": DixonPart.FAT,
}
#: Gradients for crushing and flow have a b-value too, below this, s/mm2.
_SMALLEST_B_VALUE = 5.0
#: GE adds multiples of this to the b-value.
_GE_B_VALUE_OFFSET = 100_000
_CANON_B_VALUE = re.compile(r"\bb\s*=\s*(\d+(?:\.\d+)?)\s*\(")


def classify_component(image_type: Iterable[str], complex_component: str, dataset: Dataset) -> Component:
    """Returns the component of the complex signal that an image shows.

    Any sign of another component than magnitude is used: a phase image that one element calls M is not
    graded.

    Args:
        image_type: values of ImageType or FrameType from the third on, in upper case.
        complex_component: ComplexImageComponent, "" if absent.
        dataset: top level of the header, for GE's private element.
    """
    codes = [complex_component, *(re.split(r"[_ ]", value)[0] for value in image_type)]
    found = next((_COMPONENT_CODES[code] for code in codes if code in _COMPONENT_CODES), None)
    ge = _first_integer(dataset, 0x0043, "GEMS_PARM_01", 0x2F) or 0
    return found or _GE_COMPONENTS.get(ge, Component.MAGNITUDE)


def classify_dixon_part(image_type: Iterable[str], description: str) -> DixonPart | None:
    """Returns the part of a Dixon family that an image shows; None for any other image.

    Args:
        image_type: values of ImageType or FrameType from the third on, in upper case.
        description: SeriesDescription, used if ImageType has no such code.
    """
    codes = {value.replace(" ", "_").replace("-", "_") for value in image_type}
    coded = {_DIXON_CODES[code] for code in codes if code in _DIXON_CODES}
    return next((part for part in _DIXON_ORDER if part in coded), None) or _mentioned_dixon_part(description)


def dixon_stem(description: str) -> tuple[str, DixonPart | None]:
    """Splits a description into the name of its protocol and the Dixon part in its suffix or prefix.

    Series of one examination whose names differ in this part only are a family, even if none is called
    Dixon.

    >>> dixon_stem("t2_tse_sag_opp")
    ('t2_tse_sag', <DixonPart.OPPOSED_PHASE: 'opposed phase'>)
    >>> dixon_stem("t2_tse_sag")
    ('t2_tse_sag', None)
    """
    text = description.lower()
    if prefix := _DIXON_PREFIX.match(text):
        return text[prefix.end() :].strip(), _dixon_word(prefix[1])
    for suffix in _DIXON_SUFFIX.finditer(text):
        if suffix.end() == len(text):
            return text[: suffix.start()], _dixon_word(suffix[1])
    return text, None


def _mentioned_dixon_part(description: str) -> DixonPart | None:
    text = description.lower()
    if _OPPOSED_WORDS.search(text):
        return DixonPart.OPPOSED_PHASE
    if _IN_PHASE_WORDS.search(text):
        return DixonPart.IN_PHASE
    has_prefix = _DIXON_PREFIX.match(text) is not None
    return dixon_stem(text)[1] if has_prefix or _DIXON_FAMILY.search(text) else None


def _dixon_word(word: str) -> DixonPart:
    return _DIXON_WORDS.get(word) or next(
        part for start, part in _DIXON_WORDS.items() if word.startswith(start)
    )


def read_private_b_value(dataset: Dataset) -> float | None:
    """Returns the b-value of a private element or comment (Siemens, GE, Philips, UIH, Canon), s/mm2."""
    values = [
        _first_number(dataset, 0x0019, "SIEMENS MR HEADER", 0x0C),
        _first_number(dataset, 0x2001, "Philips Imaging DD 001", 0x03),
        _first_number(dataset, 0x0065, "Image Private Header", 0x09),
    ]
    ge = _first_integer(dataset, 0x0043, "GEMS_PARM_01", 0x39)
    values.append(None if ge is None else float(ge % _GE_B_VALUE_OFFSET))
    comment = _CANON_B_VALUE.search(str(dataset.get("ImageComments", "") or ""))
    values.append(float(comment[1]) if comment else None)
    return next((value for value in values if value is not None), None)


def is_diffusion_weighted(b_value: float | None) -> bool:
    """Returns whether a b-value is that of a diffusion-weighted image, and not of a crusher gradient."""
    return b_value is not None and b_value >= _SMALLEST_B_VALUE


def _private_value(dataset: Dataset, group: int, creator: str, element: int) -> object:
    try:
        return dataset.private_block(group, creator)[element].value
    except Exception:  # absent, or damaged: pydicom parses values on access
        return None


def _first_number(dataset: Dataset, group: int, creator: str, element: int) -> float | None:
    value = _private_value(dataset, group, creator, element)
    if isinstance(value, bytes):  # VR UN, after a conversion from Implicit VR: text, or an unknown number
        value = value.decode("ascii", "replace").strip(" \0")
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = value[0] if len(value) else None
    try:
        number = math.nan if value is None else float(str(value).partition("\\")[0])
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _first_integer(dataset: Dataset, group: int, creator: str, element: int) -> int | None:
    value = _private_value(dataset, group, creator, element)
    if isinstance(value, bytes) and len(value) == 2:
        return int.from_bytes(value, "little")
    number = _first_number(dataset, group, creator, element)
    return None if number is None else int(number)
