"""What series are counted by, and the rows that their values fall in."""

from enum import Enum

import numpy as np

from lumbar_tf.dicom.study import SeriesSummary

#: Where each row of slice numbers starts.
_SLICE_BINS = (1, 2, 6, 11, 16, 21, 31, 51, 101)
_UNKNOWN = "unknown"

#: How a row is sorted, and its name.
Row = tuple[float, str]


class Attribute(Enum):
    """What series are counted by."""

    VENDOR = "Vendor"
    FIELD_STRENGTH = "Field strength"
    MATRIX = "Matrix (rows x columns)"
    PIXEL_SPACING = "Pixel spacing (between rows)"
    SLICE_GAP = "Slice gap (centre to centre)"
    NUM_SLICES = "Slices a series"


def describe_series(series: SeriesSummary) -> dict[Attribute, Row]:
    """Returns the row that a series falls in, by attribute."""
    return {
        Attribute.VENDOR: (0.0 if series.vendor else -1.0, series.vendor or _UNKNOWN),
        Attribute.FIELD_STRENGTH: _field_strength(series),
        Attribute.MATRIX: (float(series.rows * series.columns), f"{series.rows} x {series.columns}"),
        Attribute.PIXEL_SPACING: bin_length(series.row_spacing_mm, 0.1),
        Attribute.SLICE_GAP: (0.0, "one slice") if series.num_slices == 1 else bin_length(series.gap_mm, 0.5),
        Attribute.NUM_SLICES: bin_count(series.num_slices),
    }


def bin_length(length_mm: float, width_mm: float) -> Row:
    """Returns the bin that a length falls in, as its lower end and its name.

    >>> bin_length(0.68, 0.1)
    (0.6, '0.6 to 0.7 mm')
    >>> bin_length(0.0, 0.5)
    (-1.0, 'unknown')
    """
    if not 0 < length_mm < np.inf:
        return -1.0, _UNKNOWN
    # 0.7 / 0.1 is 6.999...: rounded at the ninth digit, a bin's lower end is in it.
    place = int(np.floor(round(length_mm / width_mm, 9)))
    return round(place * width_mm, 9), f"{place * width_mm:.1f} to {(place + 1) * width_mm:.1f} mm"


def bin_count(count: int) -> Row:
    """Returns the bin that a number of slices falls in, as its lower end and its name.

    >>> bin_count(1), bin_count(17), bin_count(240)
    ((1.0, '1'), (16.0, '16 to 20'), (101.0, '101 and more'))
    """
    place = max(index for index, start in enumerate(_SLICE_BINS) if start <= max(count, 1))
    start = _SLICE_BINS[place]
    if place + 1 == len(_SLICE_BINS):
        return float(start), f"{start} and more"
    end = _SLICE_BINS[place + 1] - 1
    return float(start), str(start) if end == start else f"{start} to {end}"


def _field_strength(series: SeriesSummary) -> Row:
    tesla = series.field_strength_tesla
    # Scanners write 1.494 for 1.5.
    return (-1.0, _UNKNOWN) if tesla is None else (round(tesla, 1), f"{tesla:.1f} T")
