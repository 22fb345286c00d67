"""What a study report says of findings, flags and slices, in words."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.dicom.geometry import Vector
from lumbar_tf.dicom.study import Study
from lumbar_tf.labels import FINDINGS, PLANE_FLAGS, Condition, Flag, Level, Plane, Side
from lumbar_tf.prediction.results import StudyFindings

Floats = NDArray[np.float32]

#: In a cell of the grid, where there is room for two words.
SHORT_FLAGS = {
    Flag.NO_SAGITTAL_T1: "no sagittal T1",
    Flag.NO_SAGITTAL_T2: "no sagittal T2",
    Flag.NO_AXIAL_T2: "no axial T2",
    Flag.NO_LANDMARK: "no level point",
    Flag.PRIOR_ONLY: "no image",
    Flag.LEVEL_SHIFT: "level in doubt",
}
LONG_FLAGS = {
    Flag.NO_SAGITTAL_T1: "Answered without sagittal T1, which has a part in this finding.",
    Flag.NO_SAGITTAL_T2: "Answered without sagittal T2, which has a part in this finding.",
    Flag.NO_AXIAL_T2: "Answered without axial T2, which has a part in this finding.",
    Flag.NO_LANDMARK: "No point of this finding was found, so nothing says where it is.",
    Flag.PRIOR_ONLY: "No image was looked at: the numbers are how common each grade is, no more.",
    Flag.LEVEL_SHIFT: "The level point may lie on the disc above or below: count the vertebrae first.",
}
#: Less rounds to 0 mm.
_THROUGH_MM = 0.5


def _place(condition: Condition) -> int:
    order = condition.family.spec.lateral_order
    return -order if condition.side is Side.RIGHT else order


#: As the radiologist sees them: the patient's right at the left of the page.
COLUMNS = tuple(sorted(Condition, key=_place))


def list_warnings(study: Study, result: StudyFindings) -> list[str]:
    """Returns what a reader must know before the numbers, a sentence or two each; none where all is well."""
    rows = {flag: np.flatnonzero(result.flags[:, place]).tolist() for place, flag in enumerate(Flag)}
    warnings = []
    if rows[Flag.PRIOR_ONLY]:
        warnings.append(
            f"{_count(rows[Flag.PRIOR_ONLY])} {_were(rows[Flag.PRIOR_ONLY])} answered without any image: the "
            "numbers are how common each grade is, and say nothing of this patient."
        )
    if rows[Flag.LEVEL_SHIFT]:
        warnings.append(
            f"Level in doubt at {name_levels(rows[Flag.LEVEL_SHIFT])}: the points there may lie on the disc "
            "above or below. Count the vertebrae before you use these grades."
        )
    for plane, flag in PLANE_FLAGS.items():
        name = plane.series_description
        if not study.planes.get(plane):
            without = f" {_count(rows[flag])} {_were(rows[flag])} answered without it." if rows[flag] else ""
            warnings.append(f"This study has no usable {name} series.{without}")
        elif rows[flag]:
            warnings.append(
                f"{name} does not show {_count(rows[flag])} ({name_levels(rows[flag])}), answered without it."
            )
    if rows[Flag.NO_LANDMARK]:
        rows_without = rows[Flag.NO_LANDMARK]
        warnings.append(f"No point was found of {_count(rows_without)} ({name_levels(rows_without)}).")
    if not np.isfinite(result.probability).all():
        unknown = np.flatnonzero(~np.isfinite(result.probability).all(axis=-1)).tolist()
        warnings.append(f"{_count(unknown)} without an answer.")
    return warnings


def name_levels(rows: Iterable[int]) -> str:
    """Names the levels of some findings: `L1/L2, L4/L5`, or `all levels`."""
    found = {FINDINGS[row].level for row in rows}
    if len(found) == len(Level):
        return "all levels"
    return ", ".join(each.title for each in Level if each in found)


def _count(rows: Sequence[int]) -> str:
    return f"{len(rows)} finding" if len(rows) == 1 else f"{len(rows)} findings"


def _were(rows: Sequence[int]) -> str:
    return "was" if len(rows) == 1 else "were"


def name_place(plane: Plane, centre: Vector, normal: Vector, levels: Mapping[Level, Floats]) -> str:
    """Says where a slice lies: sagittal ones beside the canal, axial ones above or below a disc.

    Args:
        plane: the slice's.
        centre: of the slice, LPS mm [3].
        normal: of the slice, [3].
        levels: the canal's points that are known, LPS mm [3].

    Returns:
        Such as `12 mm left of the canal` or `3 mm above L4/L5`; "" where no point is known.
    """
    if not levels:
        return ""
    if plane.is_sagittal:
        beside = float(np.mean([(centre - point) @ normal for point in levels.values()]))
        side = Side.LEFT if beside > 0 else Side.RIGHT
        is_within = abs(beside) < _THROUGH_MM
        return "through the canal" if is_within else f"{abs(beside):.0f} mm {side.value} of the canal"
    level, above = min(
        ((level, float((centre - point) @ normal)) for level, point in levels.items()),
        key=lambda each: abs(each[1]),
    )
    if abs(above) < _THROUGH_MM:
        return f"through {level.title}"
    return f"{abs(above):.0f} mm {'above' if above > 0 else 'below'} {level.title}"


def number_ranges(places: Iterable[int]) -> str:
    """Writes slices' places, counted from 0, as a reader counts them: `5-7, 9`.

    >>> number_ranges([8, 4, 5, 6])
    '5-7, 9'
    """
    runs: list[list[int]] = []
    for each in sorted({place + 1 for place in places}):
        if runs and each == runs[-1][-1] + 1:
            runs[-1].append(each)
        else:
            runs.append([each])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
