"""The studies of one or several sources, each with everything that the tables say of it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.dicom.reasons import Reject, RejectReason
from lumbar_tf.dicom.sources.archives import UnsafeArchiveError
from lumbar_tf.dicom.sources.listing import shown_name
from lumbar_tf.dicom.sources.study_source import StudyFiles, StudySources, read_source
from lumbar_tf.labels import Plane
from lumbar_tf.privacy.pseudonyms import IdKind, pseudonym, pseudonymise_rejects
from lumbar_tf.tables.coordinates import Coordinate, read_coordinates
from lumbar_tf.tables.labels import read_labels_tolerantly
from lumbar_tf.tables.series_descriptions import (
    SeriesPlanes,
    absent_studies,
    merge_series_tables,
    read_series_descriptions,
)


@dataclass(frozen=True, eq=False)
class CohortStudy:
    """One study to read.

    Attributes:
        study_id: the name that records and results use: the source's, or its pseudonym.
        files: where its files are, under the source's own name for it.
        series_planes: the plane of each series that a table names; None is a series to leave out.
        labels: int8 [25], None where there is no row.
        coordinates: its annotated points.
    """

    study_id: str
    files: StudyFiles
    series_planes: Mapping[str, Plane | None]
    labels: NDArray[np.int8] | None
    coordinates: Sequence[Coordinate]


@dataclass(frozen=True, eq=False)
class Cohort:
    """All studies of a call, by id, and what is wrong with sources and tables."""

    jobs: tuple[CohortStudy, ...]
    rejects: tuple[Reject, ...]


@contextmanager
def open_cohort(
    sources: Sequence[Path], *, series_map: Path | None = None, key: bytes | None = None
) -> Iterator[Cohort]:
    """Finds the studies of several sources and joins the tables beside them.

    Zips stay unpacked for as long as the block runs.

    Args:
        sources: see `dicom.sources.study_source.read_source`. The first of two studies of one name counts.
        series_map: a table of the layout of `train_series_descriptions.csv` whose rows override it.
        key: replaces ids by keyed hashes.

    Yields:
        The studies, by id. One source among several that cannot be read becomes a reject.

    Raises:
        ValueError: no source can be read, or a table lacks its columns.
    """
    with ExitStack() as stack:
        jobs: dict[str, CohortStudy] = {}
        rejects: list[Reject] = []
        overrides, faults = _read_map(series_map)
        for source in _open_sources(sources, stack, rejects):
            rejects.extend(source.rejects)
            for job in _join_tables(source, overrides, rejects):
                if job.study_id in jobs:
                    message = "a source before this one has a study of the same id, which is taken"
                    rejects.append(Reject(job.study_id, "", "", RejectReason.DUPLICATE_STUDY, message))
                    continue
                jobs[job.study_id] = job
        if series_map is not None:
            faults.extend(absent_studies(series_map, overrides, frozenset(jobs)))
            # Its name is the user's own and may be anything.
            name = shown_name(series_map, series_map.parent)
            rejects.extend(replace(each, file_name=name) for each in faults)
        if key is not None:
            jobs = {each.study_id: each for each in (_pseudonymised(job, key) for job in jobs.values())}
            rejects = list(pseudonymise_rejects(rejects, key))
        yield Cohort(tuple(jobs[each] for each in sorted(jobs)), tuple(rejects))


def _open_sources(sources: Sequence[Path], stack: ExitStack, rejects: list[Reject]) -> Iterator[StudySources]:
    for root in sources:
        try:
            source = stack.enter_context(read_source(root))
        except UnsafeArchiveError as error:
            if len(sources) == 1:
                raise
            rejects.append(Reject("", "", error.shown_name, RejectReason.UNSAFE_ARCHIVE, str(error)))
            continue
        yield source


def _read_map(series_map: Path | None) -> tuple[dict[str, SeriesPlanes], list[Reject]]:
    return ({}, []) if series_map is None else read_series_descriptions(series_map)


def _join_tables(
    source: StudySources, overrides: Mapping[str, SeriesPlanes], rejects: list[Reject]
) -> list[CohortStudy]:
    """Returns a source's studies with the tables beside them; what is wrong with these joins the rejects."""
    known = frozenset(each.study_id for each in source.studies)

    def check(path: Path, table: Iterable[str], faults: Iterable[Reject]) -> None:
        rejects.extend([*faults, *absent_studies(path, table, known)])

    planes: dict[str, SeriesPlanes] = {}
    labels: dict[str, NDArray[np.int8]] = {}
    coordinates: dict[str, list[Coordinate]] = {}
    if source.series:
        planes, faults = read_series_descriptions(source.series)
        check(source.series, planes, faults)
    if source.labels:
        labels, faults = read_labels_tolerantly(source.labels)
        check(source.labels, labels, faults)
    if source.coordinates:
        coordinates, faults = read_coordinates(source.coordinates)
        check(source.coordinates, coordinates, faults)
    planes = merge_series_tables(planes, overrides)
    return [
        CohortStudy(
            study_id=each.study_id,
            files=each,
            series_planes=planes.get(each.study_id, {}),
            labels=labels.get(each.study_id),
            coordinates=tuple(coordinates.get(each.study_id, ())),
        )
        for each in source.studies
    ]


def _pseudonymised(job: CohortStudy, key: bytes) -> CohortStudy:
    return replace(job, study_id=pseudonym(key, IdKind.STUDY, job.study_id))
