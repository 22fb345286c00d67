"""Texts of study reports and sheets: flags, warnings, and positions of slices."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.dicom.geometry import Vector
from lumbar_tf.dicom.study import Study
from lumbar_tf.labels import FINDINGS, PLANE_FLAGS, Condition, Flag, Level, Plane, Side
from lumbar_tf.prediction.results import StudyFindings

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class FlagText:
    """Texts of a flag.

    Attributes:
        short: two or three words, for a cell of the report's grid.
        footnote: phrase below the table of a sheet.
        sentence: full explanation in the report.
    """

    short: str
    footnote: str
    sentence: str


FLAG_TEXTS = {
    Flag.NO_SAGITTAL_T1: FlagText(
        "no sagittal T1",
        "predicted without sagittal T1",
        "Predicted without sagittal T1, which contributes to this finding.",
    ),
    Flag.NO_SAGITTAL_T2: FlagText(
        "no sagittal T2",
        "predicted without sagittal T2",
        "Predicted without sagittal T2, which contributes to this finding.",
    ),
    Flag.NO_AXIAL_T2: FlagText(
        "no axial T2",
        "predicted without axial T2",
        "Predicted without axial T2, which contributes to this finding.",
    ),
    Flag.NO_LANDMARK: FlagText(
        "no level point",
        "no level point",
        "No point was found for this finding, so its position is unknown.",
    ),
    Flag.PRIOR_ONLY: FlagText(
        "no image",
        "prior only: no image was used",
        "No image was used: the probabilities are the general frequencies of the grades.",
    ),
    Flag.LEVEL_SHIFT: FlagText(
        "level uncertain",
        "level uncertain: may be the one above or below",
        "The level point may lie on the disc above or below. Count the vertebrae before using this grade.",
    ),
}
#: Smaller distances are reported as 0, mm.
_THROUGH_MM = 0.5


def _lateral_position(condition: Condition) -> int:
    order = condition.family.spec.lateral_order
    return -order if condition.side is Side.RIGHT else order


#: Conditions in radiological order: the patient's right at the left of the page.
COLUMNS = tuple(sorted(Condition, key=_lateral_position))


def list_warnings(study: Study, result: StudyFindings) -> list[str]:
    """Returns warnings to read before the numbers, of one or two sentences each; may be empty."""
    rows = {flag: np.flatnonzero(result.flags[:, place]).tolist() for place, flag in enumerate(Flag)}
    warnings = []
    if rows[Flag.PRIOR_ONLY]:
        warnings.append(
            f"{_count(rows[Flag.PRIOR_ONLY])} {_were(rows[Flag.PRIOR_ONLY])} predicted without any image: "
            "the probabilities are the general frequencies of the grades and carry no information about this "
            "patient."
        )
    if rows[Flag.LEVEL_SHIFT]:
        warnings.append(
            f"Level uncertain at {format_levels(rows[Flag.LEVEL_SHIFT])}: the points may lie on the disc "
            "above or below. Count the vertebrae before using these grades."
        )
    for plane, flag in PLANE_FLAGS.items():
        warnings += _plane_warnings(study, plane, rows[flag])
    if rows[Flag.NO_LANDMARK]:
        missing = rows[Flag.NO_LANDMARK]
        warnings.append(f"No point was found for {_count(missing)} ({format_levels(missing)}).")
    if not np.isfinite(result.probability).all():
        unknown = np.flatnonzero(~np.isfinite(result.probability).all(axis=-1)).tolist()
        warnings.append(f"{_count(unknown)} {'has' if len(unknown) == 1 else 'have'} no result.")
    return warnings


def _plane_warnings(study: Study, plane: Plane, rows: Sequence[int]) -> list[str]:
    """Returns a warning if the plane is missing, or does not show the findings `rows`."""
    name = plane.series_description
    if not study.planes.get(plane):
        without = f" {_count(rows)} {_were(rows)} predicted without it." if rows else ""
        return [f"This study has no usable {name} series.{without}"]
    if rows:
        findings = f"{_count(rows)} ({format_levels(rows)})"
        return [f"{name} does not show {findings}, which {_were(rows)} predicted without it."]
    return []


def format_levels(rows: Iterable[int]) -> str:
    """Returns the levels of findings: `L1/L2, L4/L5`, or `all levels`."""
    found = {FINDINGS[row].level for row in rows}
    if len(found) == len(Level):
        return "all levels"
    return ", ".join(level.title for level in Level if level in found)


def _count(rows: Sequence[int]) -> str:
    return f"{len(rows)} finding" if len(rows) == 1 else f"{len(rows)} findings"


def _were(rows: Sequence[int]) -> str:
    return "was" if len(rows) == 1 else "were"


def describe_position(plane: Plane, centre: Vector, normal: Vector, levels: Mapping[Level, Floats]) -> str:
    """Describes the position of a slice: sagittal relative to the canal, axial relative to a disc.

    Args:
        plane: plane of the slice.
        centre: centre of the slice, LPS mm [3].
        normal: normal of the slice, [3].
        levels: known canal points, LPS mm [3].

    Returns:
        For example `12 mm left of the canal` or `3 mm above L4/L5`; "" without canal points.
    """
    if not levels:
        return ""
    if plane.is_sagittal:
        beside = float(np.mean([(centre - point) @ normal for point in levels.values()]))
        side = Side.LEFT if beside > 0 else Side.RIGHT
        is_within = abs(beside) < _THROUGH_MM
        return "through the canal" if is_within else f"{abs(beside):.0f} mm {side.value} of the canal"
    offsets = {level: float((centre - point) @ normal) for level, point in levels.items()}
    level = min(offsets, key=lambda level: abs(offsets[level]))
    above = offsets[level]
    if abs(above) < _THROUGH_MM:
        return f"through {level.title}"
    return f"{abs(above):.0f} mm {'above' if above > 0 else 'below'} {level.title}"


def format_slice_numbers(indices: Iterable[int]) -> str:
    """Formats slice indices, which start at 0, as ranges of slice numbers, which start at 1.

    >>> format_slice_numbers([8, 4, 5, 6])
    '5-7, 9'
    """
    runs: list[list[int]] = []
    for number in sorted({index + 1 for index in indices}):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
