"""Studies of one or several sources with their tables, and their encoding as records."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.dicom.files.decoders import Decoder, FrameDecoder, decode_frame, frame_decoder
from lumbar_tf.dicom.identifiers import display_name
from lumbar_tf.dicom.reasons import ReasonKind, Reject, RejectReason
from lumbar_tf.dicom.sources.archives import SourceError
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
    """A study to read.

    Attributes:
        study_id: id in records and results: the source's, or its pseudonym.
        files: its files, under the source's id.
        series_planes: plane of each series in a table; None for a series to leave out.
        labels: int8 [25], None without a row.
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

    Zip files stay unpacked until the block ends.

    Args:
        sources: see `dicom.sources.study_source.read_source`. Of two studies with the same id the first is
            used.
        series_map: a table in the format of `train_series_descriptions.csv` whose rows override it.
        key: key of the pseudonyms that replace ids.

    Yields:
        The studies. If one of several sources cannot be read, it becomes a reject.

    Raises:
        ValueError: no source can be read, a table lacks columns, or a table of labels or points has no study
            of its source.
    """
    with ExitStack() as stack:
        jobs: dict[str, CohortStudy] = {}
        rejects: list[Reject] = []
        overrides, faults = _read_map(series_map)
        for source in _open_sources(sources, stack, rejects):
            rejects.extend(source.rejects)
            for job in _join_tables(source, overrides, rejects):
                if job.study_id in jobs:
                    message = "an earlier source has a study of the same id, which is used"
                    rejects.append(Reject(job.study_id, "", "", RejectReason.DUPLICATE_STUDY, message))
                    continue
                jobs[job.study_id] = job
        if series_map is not None:
            faults.extend(absent_studies(series_map, overrides, frozenset(jobs)))
            # The file name is chosen by the user and can contain anything.
            name = display_name(series_map, series_map.parent)
            rejects.extend(replace(reject, file_name=name) for reject in faults)
        if key is not None:
            renamed = (_pseudonymised(job, key) for job in jobs.values())
            jobs = {job.study_id: job for job in renamed}
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
        except SourceError as error:
            if len(sources) == 1:
                raise
            rejects.append(Reject("", "", error.display_name, error.reason, str(error)))
            continue
        yield source


def _read_map(series_map: Path | None) -> tuple[dict[str, SeriesPlanes], list[Reject]]:
    return ({}, []) if series_map is None else read_series_descriptions(series_map)


def _join_tables(
    source: StudySources, overrides: Mapping[str, SeriesPlanes], rejects: list[Reject]
) -> list[CohortStudy]:
    """Returns a source's studies with their tables; invalid rows are added to the rejects."""
    study_ids = frozenset(study.study_id for study in source.studies)

    def check(path: Path, table: Iterable[str], faults: Iterable[Reject]) -> None:
        rejects.extend([*faults, *absent_studies(path, table, study_ids)])

    planes: dict[str, SeriesPlanes] = {}
    labels: dict[str, NDArray[np.int8]] = {}
    coordinates: dict[str, list[Coordinate]] = {}
    if source.series:
        planes, faults = read_series_descriptions(source.series)
        check(source.series, planes, faults)
    if source.labels:
        labels, faults = read_labels_tolerantly(source.labels)
        _check_ids(source.labels, labels, study_ids)
        check(source.labels, labels, faults)
    if source.coordinates:
        coordinates, faults = read_coordinates(source.coordinates)
        _check_ids(source.coordinates, coordinates, study_ids)
        check(source.coordinates, coordinates, faults)
    planes = merge_series_tables(planes, overrides)
    return [
        CohortStudy(
            study_id=study.study_id,
            files=study,
            series_planes=planes.get(study.study_id, {}),
            labels=labels.get(study.study_id),
            coordinates=tuple(coordinates.get(study.study_id, ())),
        )
        for study in source.studies
    ]


def _check_ids(path: Path, table: Collection[str], study_ids: Collection[str]) -> None:
    """Raises an error for a table that belongs to other studies, or whose ids a spreadsheet has rounded.

    Raises:
        ValueError: the table has studies, and none of them is in the source.
    """
    if table and study_ids and not set(table) & set(study_ids):
        raise ValueError(
            f"{path} must have a study of the source. Received: {len(table)} study ids, none of which is "
            f"one of its {len(study_ids)} studies."
        )


def _pseudonymised(job: CohortStudy, key: bytes) -> CohortStudy:
    return replace(job, study_id=pseudonym(key, IdKind.STUDY, job.study_id))


@dataclass(frozen=True, eq=False)
class StudyRecords:
    """The records of a study.

    Attributes:
        records: serialized Examples, in pieces, by plane; empty if no slice is usable.
        entry: the manifest's entry, whose `patient_group` is the patient's pseudonym, or "" without a key;
            None if there are no records.
        patient_id: PatientID or its pseudonym, "" if unknown. Kept in memory only.
        rejects: input that was left out or noted.
    """

    records: Mapping[Plane, Sequence[Piece]]
    entry: StudyEntry | None
    patient_id: str
    rejects: tuple[Reject, ...]


def read_cohort_study(
    job: CohortStudy, *, decode: FrameDecoder = decode_frame
) -> tuple[Study, NDArray[np.float32]]:
    """Reads a study and joins its tables, under the source's ids.

    Returns:
        The study, with the rejects of files and tables; and its annotated points, LPS mm, float32 [25, 3],
        NaN for findings without a point.
    """
    study = read_study_files(job.files, job.series_planes, decode=decode)
    points, faults = place_points(study.study_id, study.planes, job.coordinates)
    absent = absent_series(study.study_id, job.series_planes, [series.series_id for series in study.series])
    return replace(study, rejects=(*study.rejects, *faults, *absent)), points


def make_study_records(job: CohortStudy, options: BuildOptions, key: bytes | None = None) -> StudyRecords:
    """Reads a study and encodes its planes. The same files and tables give the same bytes.

    Args:
        job: the study.
        options: codec and decoder are used.
        key: key of the pseudonyms that replace ids.
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
    """Raises an error for the first reject that is not merely a choice, such as a series without use.

    Raises:
        ValueError: there is such a reject.
    """
    for reject in rejects:
        if reject.reason.kind is not ReasonKind.CHOICE:
            place = ", ".join(
                f"{name} {value}"
                for name, value in (
                    ("study", reject.study_id),
                    ("series", reject.series_id),
                    ("file", reject.file_name),
                )
                if value
            )
            raise ValueError(f"--strict: {place or 'the source'}: {reject.reason.value}: {reject.message}")
