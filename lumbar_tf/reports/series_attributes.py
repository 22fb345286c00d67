"""Attributes of series, such as vendor and field strength: bins for counts, groups for scores."""

from collections.abc import Sequence
from enum import Enum

import numpy as np

from lumbar_tf.dicom.study import SeriesSummary
from lumbar_tf.labels import Plane
from lumbar_tf.records.manifest import Manifest, StudyEntry
from lumbar_tf.tables.groups import UNKNOWN, Grouping

#: First slice count of each bin.
_SLICE_BINS = (1, 2, 6, 11, 16, 21, 31, 51, 101)
#: Upper limits of the groups of matrix sizes (larger side), px: powers of two and their midpoints.
MATRIX_ENDS = (256, 384, 512, 768)

#: Sort key and name of a bin or group.
Bin = tuple[float, str]

_SEVERAL: Bin = (1e9, "several")
_NO_SERIES: Bin = (1e9, "no such series")


class Attribute(Enum):
    """An attribute by which series are counted; the value is its title."""

    VENDOR = "Vendor"
    FIELD_STRENGTH = "Field strength"
    MATRIX = "Matrix (rows x columns)"
    PIXEL_SPACING = "Pixel spacing (between rows)"
    SLICE_GAP = "Slice gap (centre to centre)"
    NUM_SLICES = "Slices a series"


def describe_series(series: SeriesSummary) -> dict[Attribute, Bin]:
    """Returns the bin of a series for each attribute."""
    return {
        Attribute.VENDOR: (0.0 if series.vendor else -1.0, series.vendor or UNKNOWN),
        Attribute.FIELD_STRENGTH: _field_strength(series),
        Attribute.MATRIX: (float(series.rows * series.columns), f"{series.rows} x {series.columns}"),
        Attribute.PIXEL_SPACING: bin_length(series.row_spacing_mm, 0.1),
        Attribute.SLICE_GAP: (0.0, "one slice") if series.num_slices == 1 else bin_length(series.gap_mm, 0.5),
        Attribute.NUM_SLICES: bin_count(series.num_slices),
    }


def bin_length(length_mm: float, width_mm: float) -> Bin:
    """Returns the bin of a length: its lower limit and its name.

    >>> bin_length(0.68, 0.1)
    (0.6, '0.6 to 0.7 mm')
    >>> bin_length(0.0, 0.5)
    (-1.0, 'unknown')
    """
    if not 0 < length_mm < np.inf:
        return -1.0, UNKNOWN
    # 0.7 / 0.1 is 6.999...; rounding to nine digits keeps a lower limit in its own bin.
    place = int(np.floor(round(length_mm / width_mm, 9)))
    return round(place * width_mm, 9), f"{place * width_mm:.1f} to {(place + 1) * width_mm:.1f} mm"


def bin_count(count: int) -> Bin:
    """Returns the bin of a slice count: its first count and its name.

    >>> bin_count(1), bin_count(17), bin_count(240)
    ((1.0, '1'), (16.0, '16 to 20'), (101.0, '101 and more'))
    """
    place = max(index for index, start in enumerate(_SLICE_BINS) if start <= max(count, 1))
    start = _SLICE_BINS[place]
    if place + 1 == len(_SLICE_BINS):
        return float(start), f"{start} and more"
    end = _SLICE_BINS[place + 1] - 1
    return float(start), str(start) if end == start else f"{start} to {end}"


def _field_strength(series: SeriesSummary) -> Bin:
    tesla = series.field_strength_tesla
    # Some scanners store 1.494 for 1.5.
    return (-1.0, UNKNOWN) if tesla is None else (round(tesla, 1), f"{tesla:.1f} T")


def study_groupings(manifest: Manifest) -> tuple[Grouping, ...]:
    """Groups studies by vendor, field strength, available planes, and matrix size of each plane."""
    studies = manifest.studies
    groupings = [
        _grouping(attribute.value, studies, [_shared_bin(study, attribute) for study in studies])
        for attribute in (Attribute.VENDOR, Attribute.FIELD_STRENGTH)
    ]
    groupings.append(_grouping("Planes", studies, [_planes_bin(study) for study in studies]))
    for plane in Plane:
        title = f"Matrix, {plane.series_description}"
        groupings.append(_grouping(title, studies, [_matrix_bin(study, plane) for study in studies]))
    return tuple(groupings)


def bin_matrix(rows: int, columns: int) -> Bin:
    """Returns the group of a matrix by its larger side: lower limit and name.

    >>> bin_matrix(320, 300), bin_matrix(256, 256), bin_matrix(1024, 1024)
    ((256.0, '257 to 384 px'), (0.0, 'up to 256 px'), (768.0, 'over 768 px'))
    """
    side = max(rows, columns)
    below = 0
    for end in MATRIX_ENDS:
        if side <= end:
            return float(below), f"{below + 1} to {end} px" if below else f"up to {end} px"
        below = end
    return float(below), f"over {below} px"


def _kept(study: StudyEntry) -> list[SeriesSummary]:
    return [series for series in study.series if series.plane is not None]


def _shared_bin(study: StudyEntry, attribute: Attribute) -> Bin:
    """Returns the bin that all kept series of a study share."""
    found = {describe_series(series)[attribute] for series in _kept(study)}
    if len(found) > 1:
        return _SEVERAL
    return found.pop() if found else _NO_SERIES


def _planes_bin(study: StudyEntry) -> Bin:
    available = {series.plane for series in _kept(study)}
    missing = [plane.series_description for plane in Plane if plane not in available]
    return float(len(missing)), f"no {', no '.join(missing)}" if missing else "all three"


def _matrix_bin(study: StudyEntry, plane: Plane) -> Bin:
    """Returns the group of a plane's series; of several, that with the most slices."""
    candidates = [series for series in _kept(study) if series.plane is plane]
    if not candidates:
        return _NO_SERIES
    largest = max(candidates, key=lambda series: (series.num_slices, series.series_id))
    return bin_matrix(largest.rows, largest.columns)


def _grouping(attribute: str, studies: Sequence[StudyEntry], bins: Sequence[Bin]) -> Grouping:
    group_of = {study.study_id: name for study, (_, name) in zip(studies, bins, strict=True)}
    return Grouping(attribute, group_of, tuple(name for _, name in sorted(set(bins))))
