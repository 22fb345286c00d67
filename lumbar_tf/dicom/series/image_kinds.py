"""Kinds of images that one acquisition yields: complex component, Dixon part, diffusion weighting.

The rules are those of DICOM PS3.3 (C.8.3.1.1.1 ImageType of MR images, C.8.13.3.1.1 FrameType and
ComplexImageComponent) and of the vendors: Siemens marks the Dixon parts in ImageType and by a suffix of the
description, Philips stores all parts in one series with codes of one or two letters, GE uses a prefix of the
description and a private element for the complex component, and Canon ImageType.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

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
#: GE's image type in the raw data, (0043,102F).
_GE_COMPONENTS = {1.0: Component.PHASE, 2.0: Component.REAL, 3.0: Component.IMAGINARY}
#: Private elements: names and element numbers by group and creator of the block.
_PRIVATE_ELEMENTS = {
    (0x0019, "SIEMENS MR HEADER"): {"siemens_b_value": 0x0C},
    (0x0043, "GEMS_PARM_01"): {"ge_component": 0x2F, "ge_b_value": 0x39},
    (0x0065, "Image Private Header"): {"uih_b_value": 0x09},
    (0x2001, "Philips Imaging DD 001"): {"philips_b_value": 0x03},
}
_PRIVATE_GROUPS = frozenset(group for group, _ in _PRIVATE_ELEMENTS)
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
#: Characters of a comment that are searched.
_LONGEST_COMMENT = 1024
_CANON_B_VALUE = re.compile(r"\bb\s*=\s*(\d+(?:\.\d+)?)\s*\(")


@dataclass(frozen=True)
class PrivateAttributes:
    """Attributes that vendors store in private elements or comments, for all images of a file.

    Attributes:
        component: component of the complex signal, None if unknown.
        b_value: b-value, s/mm2, None if absent.
    """

    component: Component | None = None
    b_value: float | None = None


def classify_component(
    image_type: Iterable[str], complex_component: str, private: Component | None = None
) -> Component:
    """Returns the component of the complex signal that an image shows.

    Any sign of another component than magnitude is used: a phase image that one element calls M is not
    graded.

    Args:
        image_type: values of ImageType or FrameType from the third on, in upper case.
        complex_component: ComplexImageComponent, "" if absent.
        private: component in a private element.
    """
    codes = [complex_component, *(re.split(r"[_ ]", value)[0] for value in image_type)]
    found = next((_COMPONENT_CODES[code] for code in codes if code in _COMPONENT_CODES), None)
    return found or private or Component.MAGNITUDE


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


def is_diffusion_weighted(b_value: float | None) -> bool:
    """Returns whether a b-value is that of a diffusion-weighted image, and not of a crusher gradient."""
    return b_value is not None and b_value >= _SMALLEST_B_VALUE


def read_private_attributes(dataset: Dataset) -> PrivateAttributes:
    """Reads the private elements of Siemens, GE, Philips and UIH, and Canon's comment, without an error."""
    try:
        values = {name: _first_number(value) for name, value in _read_private_values(dataset).items()}
        comment = _CANON_B_VALUE.search(str(dataset.get("ImageComments", ""))[:_LONGEST_COMMENT])
    except Exception:  # pydicom parses values on access, and a damaged value may raise anything
        return PrivateAttributes()
    ge_b_value = values.get("ge_b_value")
    b_values = [values.get(name) for name in ("siemens_b_value", "philips_b_value", "uih_b_value")]
    b_values.append(None if ge_b_value is None else ge_b_value % _GE_B_VALUE_OFFSET)
    b_values.append(float(comment[1]) if comment else None)
    b_value = next((value for value in b_values if value is not None), None)
    return PrivateAttributes(_GE_COMPONENTS.get(values.get("ge_component") or 0.0), b_value)


def _read_private_values(dataset: Dataset) -> dict[str, Any]:
    """Returns the values of the elements of `_PRIVATE_ELEMENTS` that are present, by name."""
    found: dict[str, Any] = {}
    # The blocks are found in one pass: pydicom's own look-up takes longer than reading the header.
    tags = list(dataset.keys())
    creators = [tag for tag in tags if tag >> 16 in _PRIVATE_GROUPS and 0x10 <= tag & 0xFFFF <= 0xFF]
    for tag in creators:
        creator = str(dataset[tag].value).strip()
        for name, element in _PRIVATE_ELEMENTS.get((tag >> 16, creator), {}).items():
            place = (tag & 0xFFFF0000) | (tag & 0xFF) << 8 | element
            if place in dataset:
                found[name] = dataset[place].value
    return found


def _first_number(value: Any) -> float | None:
    """Returns the first number of a private value, None if there is none.

    Elements have the VR UN after a conversion from Implicit VR: their bytes are a text or a short integer.
    """
    if isinstance(value, bytes):
        is_text = all(character in b"0123456789.+-eE \\\0" for character in value)
        if len(value) == 2 and not is_text:
            return float(int.from_bytes(value, "little"))
        value = value.decode("ascii", "replace").strip(" \0")
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = value[0] if len(value) else None
    try:
        number = math.nan if value is None else float(str(value).partition("\\")[0])
    except ValueError:
        return None
    return number if math.isfinite(number) else None
