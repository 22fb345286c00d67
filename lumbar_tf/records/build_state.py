"""State of the records that a build finds: unfinished parts, and finished records to append to."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from lumbar_tf.dicom.reasons import RejectReason
from lumbar_tf.files import file_sha256, lock_file, remove_unfinished, write_text_atomically
from lumbar_tf.labels import Plane
from lumbar_tf.records.cohort import Cohort, CohortStudy
from lumbar_tf.records.manifest import BuildOptions, Manifest, RejectEntry, Shard, StudyEntry

BUILD_STATE_NAME = ".build"
_PLAN_NAME = "plan.json"
_LOCK_NAME = "lock"


class BuildPlan(BaseModel):
    """The inputs of an unfinished build.

    Attributes:
        fingerprint: SHA-256 over everything that determines the records, except the DICOM files.
        first_part: number of the first part: 0, or the number of existing parts.
        base_sha256: SHA-256 of the manifest that is appended to, "" for none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: str
    first_part: int = 0
    base_sha256: str = ""


class BuiltPart(BaseModel):
    """A finished part: consecutive studies and their shards, at most one per plane.

    Attributes:
        index: the part's number.
        fingerprint: SHA-256 over its input: tables, and names, sizes and times of the files.
        shards: by the plane's name.
        studies: the studies in the shards; `patient_group` is a keyed hash or "".
        rejects: input that was left out or noted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int
    fingerprint: str
    shards: dict[str, Shard]
    studies: tuple[StudyEntry, ...]
    rejects: tuple[RejectEntry, ...]


def has_unfinished_build(folder: Path) -> bool:
    """Whether the folder has an unfinished build."""
    return (folder / BUILD_STATE_NAME / _PLAN_NAME).is_file()


def read_build_plan(folder: Path) -> BuildPlan | None:
    """Returns the plan of the unfinished build, None if there is none.

    Raises:
        ValueError: the file is damaged.
    """
    path = folder / BUILD_STATE_NAME / _PLAN_NAME
    if not path.is_file():
        return None
    try:
        return BuildPlan.model_validate_json(path.read_bytes())
    except ValidationError:
        raise ValueError(f"{path} is damaged; rebuild with --overwrite.") from None


def write_build_plan(folder: Path, plan: BuildPlan) -> None:
    """Writes the plan before the first part is built."""
    _write(folder / BUILD_STATE_NAME / _PLAN_NAME, plan)


def read_built_part(folder: Path, index: int, fingerprint: str) -> BuiltPart | None:
    """Returns a finished part whose shards are unchanged, None if it must be built.

    Args:
        folder: the records.
        index: the part's number.
        fingerprint: fingerprint of the current input; see `BuiltPart`.
    """
    path = _part_path(folder, index)
    try:
        part = BuiltPart.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    if part.fingerprint != fingerprint:
        return None
    is_whole = all(_matches(folder, shard) for shard in part.shards.values())
    return part if is_whole else None


def _matches(folder: Path, shard: Shard) -> bool:
    path = folder / shard.file
    return path.is_file() and file_sha256(path) == shard.sha256


def write_built_part(folder: Path, part: BuiltPart) -> None:
    """Writes the entry of a part whose shards are complete."""
    _write(_part_path(folder, part.index), part)


def _part_path(folder: Path, index: int) -> Path:
    return folder / BUILD_STATE_NAME / f"part-{index:05d}.json"


def _write(path: Path, entry: BaseModel) -> None:
    write_text_atomically(path, entry.model_dump_json())


def remove_build_state(folder: Path) -> None:
    """Removes the build state, the plan first: without a plan the rest is ignored."""
    (folder / BUILD_STATE_NAME / _PLAN_NAME).unlink(missing_ok=True)
    shutil.rmtree(folder / BUILD_STATE_NAME, ignore_errors=True)


@contextmanager
def lock_records(folder: Path) -> Iterator[None]:
    """Locks a folder of records, so that only one build at a time writes to it.

    Temporary files that killed processes left behind are removed at the start and at the end.

    Raises:
        ValueError: another process holds the lock.
    """
    place = folder / BUILD_STATE_NAME
    place.mkdir(parents=True, exist_ok=True)
    busy_message = f"{folder} must have one build at a time. Another one is running."
    with lock_file(place / _LOCK_NAME, busy_message=busy_message):
        _remove_temporary_files(folder)
        try:
            yield
        finally:
            _remove_temporary_files(folder)
            if not has_unfinished_build(folder):
                shutil.rmtree(place, ignore_errors=True)


def _remove_temporary_files(folder: Path) -> None:
    for place in (folder, folder / BUILD_STATE_NAME, *(folder / plane.value for plane in Plane)):
        remove_unfinished(place)


#: Reasons in a manifest for studies that are not in its records.
_WITHOUT_SLICES = frozenset({RejectReason.NO_SLICES.value, RejectReason.NOTHING_TO_GRADE.value})


def check_can_append(
    out: Path, base: Manifest, options: BuildOptions, cohort: Cohort, *, has_key: bool
) -> None:
    """Checks that studies can be added to a folder's records.

    Args:
        out: the folder, for messages.
        base: its manifest.
        options: options of the new build.
        cohort: studies of the new build's sources.
        has_key: whether ids are pseudonyms; they identify the patient's other studies.

    Raises:
        ValueError: the options differ; or, without a key, studies of the records are missing from the
            sources, so that a new study cannot be assigned to a patient in the records.
    """
    changed = [
        f"{name} {getattr(base.options, name)} (here {value})"
        for name, value in options.model_dump().items()
        if getattr(base.options, name) != value
    ]
    if changed:
        raise ValueError(f"{out} was built with other options: {', '.join(changed)}.")
    absent = sorted({study.study_id for study in base.studies} - {study.study_id for study in cohort.jobs})
    if absent and not has_key:
        raise ValueError(
            f"--data must also contain the studies that are already in {out}: records hold no patient ids, "
            f"and a patient's studies must be in one fold. Missing: {len(absent)}, the first is {absent[0]}. "
            "Records under pseudonyms (--pseudonym-key-file) do not need the old data."
        )


def studies_to_add(
    jobs: Sequence[CohortStudy], base: Manifest | None, *, is_resumed: bool
) -> tuple[CohortStudy, ...]:
    """Returns the studies that are not in the records.

    Args:
        jobs: studies of the sources.
        base: the records' manifest, None if there is none.
        is_resumed: whether a finished build is resumed: then there is nothing to do, and studies that could
            not be used are not tried again. Appending tries them again.

    Raises:
        ValueError: a finished build is resumed with studies that were not part of it.
    """
    if base is None:
        return tuple(jobs)
    present = {study.study_id for study in base.studies}
    lacking = tuple(study for study in jobs if study.study_id not in present)
    if not is_resumed:
        return lacking
    rejected = {reject.study_id for reject in base.rejects if reject.reason in _WITHOUT_SLICES}
    unseen = [study.study_id for study in lacking if study.study_id not in rejected]
    if unseen:
        raise ValueError(
            f"The finished records lack {len(unseen)} of these studies; the first is {unseen[0]}. "
            "Add them with --append."
        )
    return ()


def next_shard_index(base: Manifest | None) -> int:
    """Returns the number after the largest one of the records' shards."""
    shards = [shard for plane in (base.planes.values() if base else ()) for shard in plane]
    return max((shard.index for shard in shards), default=-1) + 1
