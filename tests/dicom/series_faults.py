"""What can be wrong with series: what they show, how they are weighted, how their slices lie."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lumbar_tf.dicom.reasons import RejectReason
from tests.dicom.made_files import SAGITTAL
from tests.dicom.made_sources import (
    AXIAL,
    CORONAL,
    OTHER_STUDY,
    T2,
    write_export,
    write_series,
    write_slice,
)
from tests.dicom.source_damage import SourceFault, Write


def _extra_series(**tags: Any) -> Write:
    """Returns a writer of a second study with an additional series with the given tags."""

    def write(folder: Path) -> tuple[Path, ...]:
        root = write_export(folder / "export", OTHER_STUDY)
        write_series(root / OTHER_STUDY, **{"series": "9", "study": OTHER_STUDY, **T2, **tags})
        return (root,)

    return write


def _odd_slices(*slices: dict[str, Any], plane: Sequence[float] = SAGITTAL) -> Write:
    """Returns a writer of a second study with one T2 series of given slices (`place_mm`, `number`, tags)."""

    def write(folder: Path) -> tuple[Path, ...]:
        root = write_export(folder / "export")
        for index, image in enumerate(slices, start=1):
            values = {"study": OTHER_STUDY, "orientation": plane, "number": index, **T2, **image}
            write_slice(root / OTHER_STUDY / "1" / f"{index}.dcm", sop=f"{OTHER_STUDY}.1.{index}", **values)
        return (root,)

    return write


def _places(*places_mm: float) -> list[dict[str, Any]]:
    return [{"place_mm": place_mm} for place_mm in places_mm]


_MIXED_SCOUT = [{"place_mm": 0.0, "orientation": plane} for plane in (SAGITTAL, AXIAL, CORONAL)]
_TILTED = (0.0, 0.9848, 0.1736, 0.1736, 0.1710, -0.9698)

SERIES_FAULTS: tuple[SourceFault, ...] = (
    SourceFault(
        "localizer_by_image_type",
        RejectReason.LOCALIZER,
        _extra_series(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
    ),
    SourceFault("localizer_by_orientations", RejectReason.LOCALIZER, _odd_slices(*_MIXED_SCOUT)),
    SourceFault("scout_by_name", RejectReason.LOCALIZER, _extra_series(SeriesDescription="T2 SURVEY")),
    SourceFault("reformat", RejectReason.DERIVED, _extra_series(ImageType=["DERIVED", "SECONDARY", "MPR"])),
    SourceFault("subtraction", RejectReason.DERIVED, _extra_series(SeriesDescription="T1 SUB")),
    SourceFault("cervical", RejectReason.NOT_LUMBAR, _extra_series(BodyPartExamined="CSPINE")),
    SourceFault("coronal", RejectReason.UNKNOWN_PLANE, _extra_series(orientation=CORONAL)),
    SourceFault(
        "proton_density",
        RejectReason.UNKNOWN_WEIGHTING,
        _extra_series(SeriesDescription="SAG", EchoTime=25.0, RepetitionTime=3000.0),
    ),
    SourceFault("gradient_echo", RejectReason.UNKNOWN_WEIGHTING, _extra_series(ScanningSequence=["GR"])),
    SourceFault(
        "nothing_tells_the_weighting",
        RejectReason.UNKNOWN_WEIGHTING,
        _extra_series(SeriesDescription="SAG", EchoTime=None, RepetitionTime=None),
    ),
    SourceFault(
        "stir_beside_t2", RejectReason.LESS_SUITABLE, _extra_series(SeriesDescription="STIR", count=9)
    ),
    SourceFault(
        "same_place_twice",
        RejectReason.DUPLICATE_POSITION,
        _odd_slices(*_places(-10, -5, 0, 0.005, 5, 10)),
    ),
    SourceFault(
        "same_number_twice",
        RejectReason.DUPLICATE_INSTANCE_NUMBER,
        _odd_slices(*_places(-10, -5, 0, 5), {"place_mm": 10, "number": 2}),
    ),
    SourceFault(
        "two_sagittal_orientations",
        RejectReason.MIXED_ORIENTATIONS,
        _odd_slices(
            *_places(-10, -5, 0),
            *({"place_mm": place_mm, "orientation": _TILTED} for place_mm in (5, 10, 15)),
        ),
    ),
    SourceFault(
        "two_matrix_sizes",
        RejectReason.MIXED_SIZES,
        _odd_slices(*_places(-10, -5, 0, 5), {"place_mm": 10, "shape": (10, 10)}),
    ),
    SourceFault("a_slice_is_missing", RejectReason.MISSING_SLICES, _odd_slices(*_places(-10, -5, 5, 10, 15))),
    SourceFault(
        "axial_slices_are_missing",
        RejectReason.MISSING_SLICES,
        _odd_slices(
            *({"place_mm": 5.0 * number, "number": number} for number in (1, 2, 3, 6, 7)), plane=AXIAL
        ),
    ),
    SourceFault("uneven_gaps", RejectReason.UNEVEN_GAPS, _odd_slices(*_places(-10, -5, 0, 6.2, 10))),
    SourceFault("one_slice", RejectReason.SINGLE_SLICE, _odd_slices(*_places(0))),
    SourceFault(
        "description_against_timing",
        RejectReason.WEIGHTING_CONTRADICTION,
        _odd_slices(*({**item, "SeriesDescription": "T1"} for item in _places(-5, 0, 5))),
    ),
)
