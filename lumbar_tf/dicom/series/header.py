"""Series attributes of a header, uniform for classic and Enhanced MR and all vendors."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydicom.dataset import Dataset

from lumbar_tf.dicom.files.frames import find_value
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
#: Texts that users enter if no contrast agent was given.
_NO_AGENT = frozenset({"", "0", "n", "no", "none", "nil", "na", "n a", "no contrast", "without", "ohne"})


@dataclass(frozen=True)
class SeriesHeader:
    """Series attributes of a header. Free texts are kept in memory only and never written.

    Attributes:
        description: SeriesDescription, "" if absent.
        protocol: ProtocolName; with GE, the name of the whole examination.
        study_description: StudyDescription.
        body_part: BodyPartExamined.
        image_type: ImageType, FrameType and ComplexImageComponent in upper case.
        echo_time_ms: EchoTime or EffectiveEchoTime, None if absent or not positive.
        repetition_time_ms: RepetitionTime, likewise.
        inversion_time_ms: InversionTime or the first of InversionTimes, likewise.
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
    echo_time_ms: float | None = None
    repetition_time_ms: float | None = None
    inversion_time_ms: float | None = None
    scanning_sequence: tuple[str, ...] = ()
    acquisition_contrast: str = ""
    is_fat_suppressed: bool = False
    is_contrast: bool = False
    vendor: str = ""
    field_strength_tesla: float | None = None


def read_series_header(dataset: Dataset) -> SeriesHeader:
    """Reads the series attributes of an MR header. Invalid values count as absent; no error is raised."""
    description = _text(dataset, "SeriesDescription")
    texts = {
        "protocol": "ProtocolName",
        "study_description": "StudyDescription",
        "body_part": "BodyPartExamined",
    }
    image_type = [
        code
        for keyword in ("ImageType", "FrameType", "ComplexImageComponent")
        for code in _codes(dataset, keyword)
    ]
    return SeriesHeader(
        description=description,
        **{name: _text(dataset, keyword) for name, keyword in texts.items()},
        image_type=tuple(dict.fromkeys(image_type)),
        echo_time_ms=_number(dataset, "EffectiveEchoTime", "EchoTime"),
        repetition_time_ms=_number(dataset, "RepetitionTime"),
        inversion_time_ms=_number(dataset, "InversionTime", "InversionTimes"),
        scanning_sequence=_scanning_sequence(dataset),
        acquisition_contrast="".join(_codes(dataset, "AcquisitionContrast")[:1]),
        is_fat_suppressed=_is_fat_suppressed(dataset),
        is_contrast=_has_agent(dataset) or mentions_contrast(description),
        vendor=normalize_vendor(_text(dataset, "Manufacturer")),
        field_strength_tesla=normalize_field_strength(_number(dataset, "MagneticFieldStrength")),
    )


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


def _scanning_sequence(dataset: Dataset) -> tuple[str, ...]:
    """Returns ScanningSequence, or its equivalent from the MR Pulse Sequence module (PS3.3 C.8.13.4)."""
    classic = _codes(dataset, "ScanningSequence")
    if classic:
        return classic
    echo = "".join(_codes(dataset, "EchoPulseSequence")[:1])
    found = [
        ("SE", echo in ("SPIN", "BOTH")),
        ("GR", echo in ("GRADIENT", "BOTH")),
        ("EP", _codes(dataset, "EchoPlanarPulseSequence") == ("YES",)),
        ("IR", _codes(dataset, "InversionRecovery") == ("YES",)),
    ]
    return tuple(name for name, is_there in found if is_there)


def _is_fat_suppressed(dataset: Dataset) -> bool:
    options = _codes(dataset, "ScanOptions")
    suppression = _codes(dataset, "SpectrallySelectedSuppression")
    return "FS" in options or any("FAT" in code for code in suppression)


def _has_agent(dataset: Dataset) -> bool:
    if normalize_text(_text(dataset, "ContrastBolusAgent")) not in _NO_AGENT:
        return True
    return _value(dataset, "ContrastBolusAgentSequence", lambda items: len(items) > 0, False)


def _text(dataset: Dataset, keyword: str) -> str:
    return _value(dataset, keyword, lambda value: value if isinstance(value, str) else str(value), "")


def _codes(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """Returns the values of a CS element in upper case."""

    def split(value: Any) -> tuple[str, ...]:
        values = [value] if isinstance(value, str) else list(value)
        return tuple(code for text in values if (code := str(text).strip().upper()))

    return _value(dataset, keyword, split, ())


def _number(dataset: Dataset, *keywords: str) -> float | None:
    """Returns the first finite positive number among elements, of which only the first value is used."""

    def convert(value: Any) -> float:
        return float(value if isinstance(value, str | int | float) else value[0])

    for keyword in keywords:
        number = _value(dataset, keyword, convert, math.nan)
        if math.isfinite(number) and number > 0:
            return number
    return None


def _value(dataset: Dataset, keyword: str, convert: Callable[[Any], _Value], absent: _Value) -> _Value:
    """Returns the converted value of an element; `absent` if there is none or it is invalid."""
    try:
        value = find_value(dataset, keyword)
        return absent if value is None else convert(value)
    except Exception:  # pydicom parses values on access, and a damaged value may raise anything
        return absent
