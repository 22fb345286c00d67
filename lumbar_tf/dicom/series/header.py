"""Attributes of an image that its series is selected by, alike for classic and Enhanced MR of all vendors."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from lumbar_tf.dicom.files.values import functional_groups, read_value
from lumbar_tf.dicom.series.image_kinds import (
    Component,
    DixonPart,
    PrivateAttributes,
    classify_component,
    classify_dixon_part,
    read_private_attributes,
)
from lumbar_tf.dicom.series.series_description_patterns import mentions_contrast, normalize_text

_Value = TypeVar("_Value")

#: Prefixes of Manufacturer, in lower case. Canon took over Toshiba's scanners and Fujifilm Hitachi's; Toshiba
#: counts as Canon, and Hitachi keeps the name under which the scanners were sold.
_VENDORS = {
    "siemens": ("siemens",),
    "ge": ("ge ", "general electric"),
    "philips": ("philips", "marconi", "picker"),
    "canon": ("canon", "toshiba"),
    "hitachi": ("hitachi",),
    "fujifilm": ("fuji",),
    "united_imaging": ("uih", "united imaging", "shanghai united"),
}
#: Nominal field strengths, T. Scanners write the measured value: 2.89362 T is a nominal 3 T.
_FIELD_STRENGTHS_TESLA = (0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.55, 0.6, 0.7, 1.0, 1.2, 1.5, 3.0, 7.0)
_FIELD_TOLERANCE = 0.05
#: The attribute is in tesla; old scanners wrote gauss (1 T = 10,000 G). No magnet is near 100 in either unit.
_GAUSS_PER_TESLA = 10_000.0
_STRONGEST_TESLA = 100.0
#: Characters of a text and values of an element that are kept: LO has 64 characters (PS3.5 section 6.2), and
#: ImageType about ten values.
_LONGEST_TEXT, _MOST_CODES = 1024, 32
#: Texts that users enter if no contrast agent was given.
_NO_AGENT = frozenset({"", "0", "n", "no", "none", "nil", "na", "n a", "no contrast", "without", "ohne"})


@dataclass(frozen=True)
class SeriesHeader:
    """Attributes of an image, or of all images of one contrast. Free texts are never written.

    Attributes:
        description: SeriesDescription, "" if absent.
        protocol: ProtocolName; with GE, the name of the whole examination.
        study_description: StudyDescription.
        body_part: BodyPartExamined.
        image_type: ImageType or FrameType, and ComplexImageComponent, in upper case.
        component: component of the complex signal.
        dixon_part: part of a Dixon family, None for any other image.
        echo_time_ms: EchoTime or EffectiveEchoTime, None if absent or not positive.
        echo_number: EchoNumbers, None if absent.
        repetition_time_ms: RepetitionTime, likewise.
        inversion_time_ms: InversionTime or the first of InversionTimes, likewise.
        b_value: DiffusionBValue, s/mm2, None if absent.
        flip_angle_degrees: FlipAngle, None if absent.
        sequence_name: PulseSequenceName or SequenceName in lower case, "" if absent.
        temporal_position: TemporalPositionIdentifier or TemporalPositionIndex, None if absent.
        scanning_sequence: SE, IR, GR, EP or RM; derived from the pulse sequence macros in Enhanced files.
        acquisition_contrast: AcquisitionContrast of Enhanced files (T1, T2, STIR, DIFFUSION, ...).
        is_fat_suppressed: whether ScanOptions or SpectrallySelectedSuppression indicate fat suppression.
        is_contrast: whether the contrast agent attributes or the description indicate a contrast agent.
        vendor: normalized name of the manufacturer; "other" if not listed, "" if absent.
        field_strength_tesla: nominal field strength; None if absent.
    """

    description: str = ""
    protocol: str = ""
    study_description: str = ""
    body_part: str = ""
    image_type: tuple[str, ...] = ()
    component: Component = Component.MAGNITUDE
    dixon_part: DixonPart | None = None
    echo_time_ms: float | None = None
    echo_number: int | None = None
    repetition_time_ms: float | None = None
    inversion_time_ms: float | None = None
    b_value: float | None = None
    flip_angle_degrees: float | None = None
    sequence_name: str = ""
    temporal_position: int | None = None
    scanning_sequence: tuple[str, ...] = ()
    acquisition_contrast: str = ""
    is_fat_suppressed: bool = False
    is_contrast: bool = False
    vendor: str = ""
    field_strength_tesla: float | None = None


#: Datasets in which attributes are searched: the dataset that contains each tag, of the first choice first.
_Sources = Sequence[Mapping[int, Dataset]]


def read_series_header(dataset: Dataset) -> SeriesHeader:
    """Reads the attributes of a file's first image. Invalid values count as absent; no error is raised."""
    sources = [_index([dataset]), _index(_read_groups(dataset, 0))]
    return _read_header(sources, read_private_attributes(dataset))


def read_frame_headers(dataset: Dataset, num_frames: int) -> tuple[SeriesHeader, ...]:
    """Reads the attributes of each frame of a file.

    In a file of several frames the functional groups come first: an attribute at the top level belongs to no
    particular frame.
    """
    if num_frames == 1:
        return (read_series_header(dataset),)
    private = read_private_attributes(dataset)
    shared = [_index(_read_groups(dataset, None)), _index([dataset])]
    return tuple(
        _read_header([_index(_read_groups(dataset, index, has_shared=False)), *shared], private)
        for index in range(num_frames)
    )


def _read_groups(dataset: Dataset, frame: int | None, *, has_shared: bool = True) -> list[Dataset]:
    try:
        return list(functional_groups(dataset, frame, has_shared=has_shared))
    except Exception:  # pydicom parses sequences on access, and a damaged one may raise anything
        return []


def _index(parts: Sequence[Dataset]) -> dict[int, Dataset]:
    """Returns the first dataset that contains each tag."""
    owners: dict[int, Dataset] = {}
    for part in reversed(parts):
        owners.update(dict.fromkeys(part.keys(), part))
    return owners


def _read_header(sources: _Sources, private: PrivateAttributes) -> SeriesHeader:
    description = _text(sources, "SeriesDescription")
    texts = {
        "protocol": "ProtocolName",
        "study_description": "StudyDescription",
        "body_part": "BodyPartExamined",
    }
    image_type, component = _read_image_type(sources), "".join(_codes(sources, "ComplexImageComponent")[:1])
    b_value = _number(sources, "DiffusionBValue")
    return SeriesHeader(
        description=description,
        **{name: _text(sources, keyword) for name, keyword in texts.items()},
        image_type=tuple(dict.fromkeys((*image_type, *([component] if component else ())))),
        component=classify_component(image_type[2:], component, private.component),
        dixon_part=classify_dixon_part(image_type[2:], description),
        echo_time_ms=_number(sources, "EffectiveEchoTime", "EchoTime"),
        echo_number=_integer(sources, "EchoNumbers"),
        repetition_time_ms=_number(sources, "RepetitionTime"),
        inversion_time_ms=_number(sources, "InversionTime", "InversionTimes"),
        b_value=private.b_value if b_value is None else b_value,
        flip_angle_degrees=_number(sources, "FlipAngle"),
        sequence_name=(_text(sources, "PulseSequenceName") or _text(sources, "SequenceName")).lower(),
        temporal_position=_integer(sources, "TemporalPositionIndex", "TemporalPositionIdentifier"),
        scanning_sequence=_scanning_sequence(sources),
        acquisition_contrast="".join(_codes(sources, "AcquisitionContrast")[:1]),
        is_fat_suppressed=_is_fat_suppressed(sources),
        is_contrast=_has_agent(sources) or mentions_contrast(description),
        vendor=normalize_vendor(_text(sources, "Manufacturer")),
        field_strength_tesla=normalize_field_strength(_number(sources, "MagneticFieldStrength")),
    )


def _read_image_type(sources: _Sources) -> tuple[str, ...]:
    """Returns the type of a frame, or of the image; values of both if the file has one frame."""
    image, frame = _codes(sources, "ImageType"), _codes(sources, "FrameType")
    is_single = _tag("ImageType") in sources[0]
    return tuple(dict.fromkeys((*image, *frame))) if is_single or not frame else frame


def normalize_vendor(manufacturer: str) -> str:
    """Returns the normalized name of a manufacturer.

    >>> normalize_vendor("SIEMENS"), normalize_vendor("GE MEDICAL SYSTEMS"), normalize_vendor("Esaote")
    ('siemens', 'ge', 'other')
    """
    name = f"{normalize_text(manufacturer)} "
    if not name.strip():
        return ""
    return next((vendor for vendor, starts in _VENDORS.items() if name.startswith(starts)), "other")


def normalize_field_strength(value: float | None) -> float | None:
    """Returns the nominal field strength in tesla for the value that a scanner wrote.

    >>> [normalize_field_strength(value) for value in (1.494, 15000.0, 2.89362, 4.7, None)]
    [1.5, 1.5, 3.0, 4.7, None]
    """
    if value is None:
        return None
    tesla = value / _GAUSS_PER_TESLA if value > _STRONGEST_TESLA else value
    nearest = min(_FIELD_STRENGTHS_TESLA, key=lambda nominal: abs(nominal - tesla))
    return nearest if abs(nearest - tesla) <= _FIELD_TOLERANCE * nearest else round(tesla, 2)


def _scanning_sequence(sources: _Sources) -> tuple[str, ...]:
    """Returns ScanningSequence, or its equivalent from the MR Pulse Sequence module (PS3.3 C.8.13.4).

    GE marks echo-planar sequences in ScanOptions.
    """
    classic = _codes(sources, "ScanningSequence")
    if classic:
        is_planar = any(code.startswith("EPI") for code in _codes(sources, "ScanOptions"))
        return (*classic, "EP") if is_planar and "EP" not in classic else classic
    echo = "".join(_codes(sources, "EchoPulseSequence")[:1])
    found = [
        ("SE", echo in ("SPIN", "BOTH")),
        ("GR", echo in ("GRADIENT", "BOTH")),
        ("EP", _codes(sources, "EchoPlanarPulseSequence") == ("YES",)),
        ("IR", _codes(sources, "InversionRecovery") == ("YES",)),
    ]
    return tuple(name for name, is_there in found if is_there)


def _is_fat_suppressed(sources: _Sources) -> bool:
    options = _codes(sources, "ScanOptions")
    suppression = _codes(sources, "SpectrallySelectedSuppression")
    return "FS" in options or any("FAT" in code for code in suppression)


def _has_agent(sources: _Sources) -> bool:
    if normalize_text(_text(sources, "ContrastBolusAgent")) not in _NO_AGENT:
        return True
    return _value(sources, "ContrastBolusAgentSequence", lambda items: len(items) > 0, False)


def _text(sources: _Sources, keyword: str) -> str:
    return _value(sources, keyword, lambda value: str(value)[:_LONGEST_TEXT], "")


def _codes(sources: _Sources, keyword: str) -> tuple[str, ...]:
    """Returns the values of a CS element in upper case."""

    def split(value: Any) -> tuple[str, ...]:
        values = [value] if isinstance(value, str) else list(value)
        codes = (str(text)[:_LONGEST_TEXT].strip().upper() for text in values[:_MOST_CODES])
        return tuple(code for code in codes if code)

    return _value(sources, keyword, split, ())


def _number(sources: _Sources, *keywords: str) -> float | None:
    """Returns the first finite positive number among elements, of which only the first value is used."""

    def convert(value: Any) -> float:
        return float(value if isinstance(value, str | int | float) else value[0])

    for keyword in keywords:
        number = _value(sources, keyword, convert, math.nan)
        if math.isfinite(number) and number > 0:
            return number
    return None


def _integer(sources: _Sources, *keywords: str) -> int | None:
    number = _number(sources, *keywords)
    return None if number is None else int(number)


def _value(sources: _Sources, keyword: str, convert: Callable[[Any], _Value], absent: _Value) -> _Value:
    """Returns the converted value of an element; `absent` if there is none or it is invalid."""
    tag = _tag(keyword)
    owners = [source[tag] for source in sources if tag in source]
    if not owners:
        return absent
    # pydicom parses values on access, and a damaged value may raise anything.
    with suppress(Exception):
        for owner in owners:
            value = read_value(owner, keyword)
            if value is not None:
                return convert(value)
    return absent


@cache
def _tag(keyword: str) -> int:
    return tag_for_keyword(keyword) or 0
