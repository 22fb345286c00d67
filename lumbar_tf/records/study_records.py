"""What becomes of one study: read, joined with its tables, encoded. Building and verifying both call it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.dicom.files.decoders import Decoder, FrameDecoder, frame_decoder
from lumbar_tf.dicom.files.pixels import decode_frame
from lumbar_tf.dicom.reasons import ReasonKind, Reject
from lumbar_tf.dicom.study import Study
from lumbar_tf.dicom.study_reader import read_study_files
from lumbar_tf.labels import Plane
from lumbar_tf.privacy.pseudonyms import pseudonymise_study
from lumbar_tf.records.cohort import CohortStudy
from lumbar_tf.records.example import Piece
from lumbar_tf.records.manifest import BuildOptions, StudyEntry
from lumbar_tf.records.schema import plane_pieces
from lumbar_tf.tables.coordinates import place_points
from lumbar_tf.tables.series_descriptions import absent_series


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


def read_job(job: CohortStudy, *, decode: FrameDecoder = decode_frame) -> tuple[Study, NDArray[np.float32]]:
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
    study, points = read_job(job, decode=frame_decoder(Decoder(options.decoder)))
    if key is not None:
        study = pseudonymise_study(study, key)
    if not study.planes:
        return StudyRecords({}, None, study.patient_id, study.rejects)
    records = {
        plane: plane_pieces(
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


def refuse_faults(rejects: Iterable[Reject]) -> None:
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
