"""Studies told apart by what their series say of the scanner, for scores of sub-groups."""

from collections.abc import Sequence

from lumbar_tf.dicom.study import SeriesSummary
from lumbar_tf.evaluation.comparison import Grouping
from lumbar_tf.labels import Plane
from lumbar_tf.records.manifest import Manifest, StudyEntry
from lumbar_tf.reports.series_attributes import Attribute, Row, describe_series

#: The larger side of a matrix falls in groups that end here: powers of two and their halves between them, px.
MATRIX_ENDS = (256, 384, 512, 768)
_SEVERAL: Row = (1e9, "several")
_NO_SERIES: Row = (1e9, "no such series")


def study_groupings(manifest: Manifest) -> tuple[Grouping, ...]:
    """Returns groupings by vendor, field strength, the planes that a study has, and each plane's matrix."""
    entries = manifest.studies
    rows = {attribute: [_one_row(each, attribute) for each in entries] for attribute in _SCANNER}
    groupings = [_grouping(each.value, entries, found) for each, found in rows.items()]
    groupings.append(_grouping("Planes", entries, [_planes_row(each) for each in entries]))
    for plane in Plane:
        title = f"Matrix, {plane.series_description}"
        groupings.append(_grouping(title, entries, [_matrix_row(each, plane) for each in entries]))
    return tuple(groupings)


_SCANNER = (Attribute.VENDOR, Attribute.FIELD_STRENGTH)


def matrix_row(rows: int, columns: int) -> Row:
    """Returns the group that a matrix falls in, as its lower end and its name.

    >>> matrix_row(320, 300), matrix_row(256, 256), matrix_row(1024, 1024)
    ((256.0, '257 to 384 px'), (0.0, 'up to 256 px'), (768.0, 'over 768 px'))
    """
    side = max(rows, columns)
    below = 0
    for end in MATRIX_ENDS:
        if side <= end:
            return float(below), f"{below + 1} to {end} px" if below else f"up to {end} px"
        below = end
    return float(below), f"over {below} px"


def _kept(entry: StudyEntry) -> list[SeriesSummary]:
    return [each for each in entry.series if each.plane is not None]


def _one_row(entry: StudyEntry, attribute: Attribute) -> Row:
    """Returns the value that all kept series of a study share."""
    found = {describe_series(each)[attribute] for each in _kept(entry)}
    if len(found) > 1:
        return _SEVERAL
    return found.pop() if found else _NO_SERIES


def _planes_row(entry: StudyEntry) -> Row:
    missing = [plane.series_description for plane in Plane if not any(s.plane is plane for s in _kept(entry))]
    return float(len(missing)), f"no {', no '.join(missing)}" if missing else "all three"


def _matrix_row(entry: StudyEntry, plane: Plane) -> Row:
    """Returns the matrix of a plane's series; of several, that with the most slices."""
    series = [each for each in _kept(entry) if each.plane is plane]
    if not series:
        return _NO_SERIES
    largest = max(series, key=lambda each: (each.num_slices, each.series_id))
    return matrix_row(largest.rows, largest.columns)


def _grouping(attribute: str, entries: Sequence[StudyEntry], rows: Sequence[Row]) -> Grouping:
    group_of = {entry.study_id: name for entry, (_, name) in zip(entries, rows, strict=True)}
    return Grouping(attribute, group_of, tuple(name for _, name in sorted(set(rows))))
