"""Studies of one or several sources with their tables, and their encoding as records."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.dicom.files.decoders import Decoder, FrameDecoder, frame_decoder
from lumbar_tf.dicom.files.pixels import decode_frame
from lumbar_tf.dicom.reasons import ReasonKind, Reject, RejectReason
from lumbar_tf.dicom.sources.archives import UnsafeArchiveError
from lumbar_tf.dicom.sources.listing import shown_name
from lumbar_tf.dicom.sources.study_source import StudyFiles, StudySources, is_synthetic_source, read_source
from lumbar_tf.dicom.study import Study
from lumbar_tf.dicom.study_reader import read_study_files
from lumbar_tf.labels import Plane
from lumbar_tf.privacy.pseudonyms import IdKind, pseudonym, pseudonymise_rejects, pseudonymise_study
from lumbar_tf.records.example import Piece
from lumbar_tf.records.manifest import BuildOptions, StudyEntry
from lumbar_tf.records.schema import encode_plane_pieces
from lumbar_tf.tables.coordinates import Coordinate, place_points, read_coordinates
from lumbar_tf.tables.labels import read_labels_tolerantly
from lumbar_tf.tables.series_descriptions import (
    SeriesPlanes,
    absent_series,
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
    """All studies of a call.

    Attributes:
        jobs: the studies, sorted by id.
        rejects: invalid parts of sources and tables.
        is_synthetic: whether all sources are synthetic.
    """

    jobs: tuple[CohortStudy, ...]
    rejects: tuple[Reject, ...]
    is_synthetic: bool = False


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
        yield Cohort(
            tuple(jobs[study_id] for study_id in sorted(jobs)),
            tuple(rejects),
            is_synthetic=all(is_synthetic_source(source) for source in sources),
        )


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


@dataclass(frozen=True, eq=False)
class StudyRecords:
    """A study as records hold it.

    Attributes:
        records: serialized Examples, in pieces, by plane; none where no slice could be used.
        entry: the manifest's entry, `patient_group` being the patient's pseudonym where there is a key
            and "" where there is none; None where there are no records.
        patient_id: PatientID or its pseudonym, "" where unknown. Kept in memory only.
        rejects: what was left out or noted.
    """

    records: Mapping[Plane, Sequence[Piece]]
    entry: StudyEntry | None
    patient_id: str
    rejects: tuple[Reject, ...]


def read_cohort_study(
    job: CohortStudy, *, decode: FrameDecoder = decode_frame
) -> tuple[Study, NDArray[np.float32]]:
    """Reads a study and joins its tables, under the source's own ids.

    Returns:
        The study, its rejects with those of the tables; and its annotated points, LPS mm, float32 [25, 3],
        NaN where there is none.
    """
    study = read_study_files(job.files, job.series_planes, decode=decode)
    points, faults = place_points(study.study_id, study.planes, job.coordinates)
    absent = absent_series(study.study_id, job.series_planes, [each.series_id for each in study.series])
    return replace(study, rejects=(*study.rejects, *faults, *absent)), points


def make_study_records(job: CohortStudy, options: BuildOptions, key: bytes | None = None) -> StudyRecords:
    """Reads a study and encodes its planes. The same files and tables give the same bytes.

    Args:
        job: the study.
        options: codec and decoder are taken from here.
        key: replaces ids by keyed hashes.
    """
    study, points = read_cohort_study(job, decode=frame_decoder(Decoder(options.decoder)))
    if key is not None:
        study = pseudonymise_study(study, key)
    if not study.planes:
        return StudyRecords({}, None, study.patient_id, study.rejects)
    records = {
        plane: encode_plane_pieces(
            study.study_id, plane, slices, labels=job.labels, points=points, codec=options.codec
        )
        for plane, slices in study.planes.items()
    }
    entry = StudyEntry(
        study_id=study.study_id,
        patient_group=study.patient_id if key is not None else "",
        source_digest=study.source_digest,
        num_slices={plane.value: len(slices) for plane, slices in study.planes.items()},
        series=study.series,
    )
    return StudyRecords(records, entry, study.patient_id, study.rejects)


def raise_first_fault(rejects: Iterable[Reject]) -> None:
    """Makes the first fault or note fatal; what is merely nothing to grade stays no error.

    Raises:
        ValueError: there is one.
    """
    for each in rejects:
        if each.reason.kind is not ReasonKind.CHOICE:
            place = ", ".join(
                f"{name} {value}"
                for name, value in (
                    ("study", each.study_id),
                    ("series", each.series_id),
                    ("file", each.file_name),
                )
                if value
            )
            raise ValueError(f"--strict: {place or 'the source'}: {each.reason.value}: {each.message}")
