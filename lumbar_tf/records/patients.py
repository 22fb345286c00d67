"""Patients of records: grouping of their studies, and their removal."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from lumbar_tf.dicom.study_files import read_patient_id
from lumbar_tf.files import open_regular_file
from lumbar_tf.privacy.pseudonyms import IdKind, pseudonym
from lumbar_tf.records.build_state import BUILD_STATE_NAME, has_unfinished_build, lock_records
from lumbar_tf.records.cohort import CohortStudy
from lumbar_tf.records.example import parse_example_features
from lumbar_tf.records.framing import CorruptRecord, read_records, scan_records
from lumbar_tf.records.manifest import (
    Manifest,
    Shard,
    StudyEntry,
    read_manifest,
    write_manifest,
)
from lumbar_tf.records.shards import replace_shard
from lumbar_tf.records.verification import SHARD_SUFFIX, is_linked, list_record_files
from lumbar_tf.tables.folds import FOLDS_NAME, read_fold_table, write_folds
from lumbar_tf.tables.labels import read_record_labels, write_record_labels


def group_patients(patient_ids: Mapping[str, str]) -> dict[str, str]:
    """Groups studies by patient without naming the patient.

    Args:
        patient_ids: PatientID by study id, "" where it is unknown.

    Returns:
        For each study the smallest study id of the same patient; a study without PatientID is its own group.

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
        jobs: the studies' files.
        patient_ids: PatientID by study id of the studies read in this run. It is not stored, so that for
            studies read in an earlier, interrupted run the headers are read again.
        has_key: whether the entries hold their patient's pseudonym, so that nothing has to be read.

    Returns:
        The entries, in the same order.
    """
    if has_key:
        groups = {study.study_id: study.patient_group or study.study_id for study in studies}
    else:
        files = {job.study_id: job.files for job in jobs}
        groups = group_patients(
            {
                study.study_id: patient_ids[study.study_id]
                if study.study_id in patient_ids
                else read_patient_id(files[study.study_id])
                for study in studies
            }
        )
    return tuple(study.model_copy(update={"patient_group": groups[study.study_id]}) for study in studies)


def remove_patients(out: Path, study_ids: Sequence[str], *, key: bytes | None = None) -> tuple[str, ...]:
    """Removes patients from finished records, without the DICOM files.

    Only shards with a removed study are rewritten; a shard with no other study is deleted. The manifest is
    written last, so that the same call completes an interrupted removal. Before that all files of the folder
    are searched for records of the patients.

    Args:
        out: finished records.
        study_ids: at least one study id of each patient, as in the records or, with a key, as in the source.
        key: the key of the records' pseudonyms.

    Returns:
        All studies of these patients, sorted.

    Raises:
        ValueError: an id is not in the records, a build is unfinished, a shard is damaged, a link or outside
            the folder, or other files still hold records of the patients; the manifest then still lists them.
    """
    with lock_records(out):
        if has_unfinished_build(out):
            raise ValueError(f"{out} holds an unfinished build; finish it with --resume first.")
        manifest = read_manifest(out)
        _check_shards(out, manifest)
        removed = _all_studies(manifest, [_find(manifest, study_id, key) for study_id in study_ids])
        planes = {
            plane: tuple(kept for shard in shards if (kept := _without(out, shard, removed)) is not None)
            for plane, shards in manifest.planes.items()
        }
        folds = read_fold_table(out / FOLDS_NAME)
        write_folds(out / FOLDS_NAME, {study: fold for study, fold in folds.items() if study not in removed})
        labels = read_record_labels(out)
        write_record_labels(out, {study: row for study, row in labels.items() if study not in removed})
        _check_leftovers(out, {shard.file for shards in planes.values() for shard in shards}, removed)
        write_manifest(
            out,
            manifest.model_copy(
                update={
                    "planes": planes,
                    "studies": tuple(study for study in manifest.studies if study.study_id not in removed),
                    "rejects": tuple(reject for reject in manifest.rejects if reject.study_id not in removed),
                }
            ),
        )
    return tuple(sorted(removed))


def _check_shards(out: Path, manifest: Manifest) -> None:
    """Raises if a shard is no regular file: removing a link would leave the records that it leads to."""
    for shards in manifest.planes.values():
        for shard in shards:
            path = out / shard.file
            if is_linked(out, shard.file) or (path.exists() and not path.is_file()):
                raise ValueError(
                    f"Shards must be files in the folder of records, not links, so that removed records are "
                    f"gone. Received: {shard.file}."
                )


def _check_leftovers(out: Path, shards: Collection[str], removed: frozenset[str]) -> None:
    """Raises if a file of the folder still holds a record of removed studies, or cannot be searched."""
    state = f"{BUILD_STATE_NAME}/"
    files = [file for file in list_record_files(out) if not file.startswith(state)]
    left = [file for file in files if _may_hold(out / file, removed, is_shard=file in shards)]
    if left:
        raise ValueError(
            "No file of the records may hold removed patients. Received: "
            f"{', '.join(repr(file) for file in left)}, which holds records of them or cannot be searched. "
            "Remove it or restore it, and run the same command again; the manifest still lists the patients."
        )


def _may_hold(path: Path, removed: frozenset[str], *, is_shard: bool) -> bool:
    """Whether a file holds a record of some studies, or is a shard, link or pipe that cannot be searched."""
    if path.is_symlink():
        return True
    must_be_sound = is_shard or path.suffix == SHARD_SUFFIX
    try:
        with open_regular_file(path) as file:
            for record in scan_records(file):
                if isinstance(record, CorruptRecord):
                    if must_be_sound:
                        return True
                elif _study_id(record.data) in removed:
                    return True
    except OSError:
        return True
    return False


def _study_id(record: bytes) -> str | None:
    try:
        return str(parse_example_features(record)["study_id"][0].decode())
    except (ValueError, KeyError, IndexError, AttributeError):
        return None


def _find(manifest: Manifest, study_id: str, key: bytes | None) -> str:
    names = [study_id] if key is None else [study_id, pseudonym(key, IdKind.STUDY, study_id)]
    known = {study.study_id for study in manifest.studies}
    for name in names:
        if name in known:
            return name
    raise ValueError(
        f"--forget must name studies of the records. Received: {study_id!r}, which is not in them."
    )


def _all_studies(manifest: Manifest, study_ids: Iterable[str]) -> frozenset[str]:
    groups = manifest.patient_groups
    wanted = {groups[study_id] for study_id in study_ids}
    return frozenset(study for study, group in groups.items() if group in wanted)


def _without(out: Path, shard: Shard, removed: frozenset[str]) -> Shard | None:
    """Rewrites a shard without some studies; returns its entry, None for a shard without other studies."""
    if not removed & set(shard.study_ids):
        return shard
    path = out / shard.file
    kept = tuple(study_id for study_id in shard.study_ids if study_id not in removed)
    if not kept:
        path.unlink(missing_ok=True)
        return None
    found = {}
    for record in read_records(path):
        (study_id,) = parse_example_features(record)["study_id"]
        found[study_id.decode()] = record
    # An earlier, interrupted call may have removed them already.
    if not set(kept) <= set(found) <= set(shard.study_ids):
        raise ValueError(f"{shard.file} does not match the manifest; run lumbar_tf.verify.")
    sha256, size_bytes = replace_shard(path, [found[study_id] for study_id in kept])
    return shard.model_copy(
        update={"study_ids": kept, "num_examples": len(kept), "sha256": sha256, "size_bytes": size_bytes}
    )
