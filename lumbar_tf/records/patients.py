"""Patients of records: grouping of their studies, and their removal."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lumbar_tf.dicom.study_files import read_patient_id
from lumbar_tf.privacy.pseudonyms import IdKind, pseudonym
from lumbar_tf.records.build_state import has_unfinished_build, lock_records
from lumbar_tf.records.cohort import CohortStudy
from lumbar_tf.records.example import parse_example_features
from lumbar_tf.records.framing import read_records
from lumbar_tf.records.manifest import (
    Manifest,
    Shard,
    StudyEntry,
    read_manifest,
    write_manifest,
)
from lumbar_tf.records.shards import replace_shard
from lumbar_tf.tables.folds import FOLDS_NAME, read_fold_table, write_folds
from lumbar_tf.tables.labels import read_record_labels, write_record_labels


def group_patients(patient_ids: Mapping[str, str]) -> dict[str, str]:
    """Groups studies by patient without naming the patient.

    Args:
        patient_ids: PatientID by study id, "" where it is unknown.

    Returns:
        For each study the smallest study id of the same patient; a study without PatientID stands
        for itself.

    >>> group_patients({"3": "p", "1": "p", "2": ""})
    {'3': '1', '1': '1', '2': '2'}
    """
    smallest: dict[str, str] = {}
    for study_id, patient_id in sorted(patient_ids.items()):
        smallest.setdefault(patient_id, study_id)
    return {study: smallest[patient] if patient else study for study, patient in patient_ids.items()}


def group_studies(
    studies: Sequence[StudyEntry],
    jobs: Sequence[CohortStudy],
    patient_ids: Mapping[str, str],
    *,
    has_key: bool,
) -> tuple[StudyEntry, ...]:
    """Gives each study its `patient_group`.

    Args:
        studies: the manifest's entries.
        jobs: where each study's files are.
        patient_ids: PatientID by study id, of the studies that were read just now. Those of studies that
            an earlier, cut-off run read are in no file, so their headers are asked again.
        has_key: whether entries hold their patient's pseudonym, so that nothing has to be read.

    Returns:
        The entries, in the same order.
    """
    if has_key:
        groups = {each.study_id: each.patient_group or each.study_id for each in studies}
    else:
        files = {each.study_id: each.files for each in jobs}
        groups = group_patients(
            {
                each.study_id: patient_ids[each.study_id]
                if each.study_id in patient_ids
                else read_patient_id(files[each.study_id])
                for each in studies
            }
        )
    return tuple(each.model_copy(update={"patient_group": groups[each.study_id]}) for each in studies)


def remove_patients(out: Path, study_ids: Sequence[str], *, key: bytes | None = None) -> tuple[str, ...]:
    """Removes every study of the patients that some studies belong to.

    Only the shards that held one are written again; a shard that held nothing else is removed. If it is cut
    off, the same call finishes it: the manifest is written last.

    Args:
        out: finished records.
        study_ids: at least one study of each patient, as the records name it, or, with a key, as the
            source does.
        key: that the pseudonyms were made with.

    Returns:
        The studies that were removed, sorted.

    Raises:
        ValueError: an id that is not there, an unfinished build, or a damaged shard.
    """
    with lock_records(out):
        if has_unfinished_build(out):
            raise ValueError(f"{out} holds an unfinished build: finish it with --resume first.")
        manifest = read_manifest(out)
        gone = _all_studies(manifest, [_find(manifest, each, key) for each in study_ids])
        planes = {
            plane: tuple(kept for shard in shards if (kept := _without(out, shard, gone)) is not None)
            for plane, shards in manifest.planes.items()
        }
        folds = read_fold_table(out / FOLDS_NAME)
        write_folds(out / FOLDS_NAME, {study: fold for study, fold in folds.items() if study not in gone})
        labels = read_record_labels(out)
        write_record_labels(out, {study: row for study, row in labels.items() if study not in gone})
        write_manifest(
            out,
            manifest.model_copy(
                update={
                    "planes": planes,
                    "studies": tuple(each for each in manifest.studies if each.study_id not in gone),
                    "rejects": tuple(each for each in manifest.rejects if each.study_id not in gone),
                }
            ),
        )
    return tuple(sorted(gone))


def _find(manifest: Manifest, study_id: str, key: bytes | None) -> str:
    names = [study_id] if key is None else [study_id, pseudonym(key, IdKind.STUDY, study_id)]
    known = {each.study_id for each in manifest.studies}
    for name in names:
        if name in known:
            return name
    raise ValueError(
        f"--forget must name a study of the records. Received: {study_id!r}, which is not there."
    )


def _all_studies(manifest: Manifest, study_ids: Iterable[str]) -> frozenset[str]:
    groups = {each.study_id: each.patient_group for each in manifest.studies}
    wanted = {groups[each] for each in study_ids}
    return frozenset(study for study, group in groups.items() if group in wanted)


def _without(out: Path, shard: Shard, gone: frozenset[str]) -> Shard | None:
    """Returns a shard's entry without some studies, its file written again; None where nothing is left."""
    if not gone & set(shard.study_ids):
        return shard
    path = out / shard.file
    kept = tuple(each for each in shard.study_ids if each not in gone)
    if not kept:
        path.unlink(missing_ok=True)
        return None
    found = {}
    for record in read_records(path):
        (study_id,) = parse_example_features(record)["study_id"]
        found[study_id.decode()] = record
    # An earlier call that was cut off may have taken them out already.
    if not set(kept) <= set(found) <= set(shard.study_ids):
        raise ValueError(f"{shard.file} does not hold what the manifest says; run lumbar_tf.verify.")
    sha256, size_bytes = replace_shard(path, [found[each] for each in kept])
    return shard.model_copy(
        update={"study_ids": kept, "num_examples": len(kept), "sha256": sha256, "size_bytes": size_bytes}
    )
