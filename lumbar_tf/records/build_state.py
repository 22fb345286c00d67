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
    """What a build set out to do.

    Attributes:
        fingerprint: SHA-256 over everything that shapes its records, but the DICOM files.
        first_part: number of its first part: 0, or the number of parts that it adds to.
        base_sha256: SHA-256 of the manifest that it adds to, "" for none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: str
    first_part: int = 0
    base_sha256: str = ""


class BuiltPart(BaseModel):
    """One part that is done: a run of studies, and their shards.

    Attributes:
        index: its number.
        fingerprint: SHA-256 over what it was made from: tables, and names, sizes and times of the files.
        shards: by the plane's name.
        studies: those that are in the shards; `patient_group` is a keyed hash or "".
        rejects: what was left out or noted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int
    fingerprint: str
    shards: dict[str, Shard]
    studies: tuple[StudyEntry, ...]
    rejects: tuple[RejectEntry, ...]


def has_unfinished_build(folder: Path) -> bool:
    """Whether a build of the records in this folder was begun and not finished."""
    return (folder / BUILD_STATE_NAME / _PLAN_NAME).is_file()


def read_build_plan(folder: Path) -> BuildPlan | None:
    """Returns the plan of the unfinished build, None where there is none.

    Raises:
        ValueError: it is damaged.
    """
    path = folder / BUILD_STATE_NAME / _PLAN_NAME
    if not path.is_file():
        return None
    try:
        return BuildPlan.model_validate_json(path.read_bytes())
    except ValidationError:
        raise ValueError(f"{path} is damaged; build anew with --overwrite.") from None


def write_build_plan(folder: Path, plan: BuildPlan) -> None:
    """Opens the journal."""
    _write(folder / BUILD_STATE_NAME / _PLAN_NAME, plan)


def read_built_part(folder: Path, index: int, fingerprint: str) -> BuiltPart | None:
    """Returns a part that is done and still as it was, None where it has to be built (again).

    Args:
        folder: where the records are.
        index: the part's number.
        fingerprint: what it would be made from now.
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
    """Enters a part whose shards are on the disk."""
    _write(_part_path(folder, part.index), part)


def _part_path(folder: Path, index: int) -> Path:
    return folder / BUILD_STATE_NAME / f"part-{index:05d}.json"


def _write(path: Path, entry: BaseModel) -> None:
    write_text_atomically(path, entry.model_dump_json())


def remove_build_state(folder: Path) -> None:
    """Closes the journal: the plan goes first, so that a kill in between leaves no half of one."""
    (folder / BUILD_STATE_NAME / _PLAN_NAME).unlink(missing_ok=True)
    shutil.rmtree(folder / BUILD_STATE_NAME, ignore_errors=True)


@contextmanager
def lock_records(folder: Path) -> Iterator[None]:
    """Keeps a second build out of the folder for as long as the block runs.

    Nobody else makes files there then, so what killed processes left of theirs goes: those of an earlier
    build, and at the end those that died on the way.

    Raises:
        ValueError: another process is building there.
    """
    place = folder / BUILD_STATE_NAME
    place.mkdir(parents=True, exist_ok=True)
    busy_message = f"{folder} must have one build at a time. Another one is running."
    with lock_file(place / _LOCK_NAME, busy_message=busy_message):
        _sweep(folder)
        try:
            yield
        finally:
            _sweep(folder)
            if not has_unfinished_build(folder):
                shutil.rmtree(place, ignore_errors=True)


def _sweep(folder: Path) -> None:
    for place in (folder, folder / BUILD_STATE_NAME, *(folder / plane.value for plane in Plane)):
        remove_unfinished(place)


#: What a manifest says of a study that is not in its records.
_WITHOUT_SLICES = frozenset({RejectReason.NO_SLICES.value, RejectReason.NOTHING_TO_GRADE.value})


def check_can_append(
    out: Path, base: Manifest, options: BuildOptions, cohort: Cohort, *, has_key: bool
) -> None:
    """Checks that studies can be added to a folder's records.

    Args:
        out: the folder, for messages.
        base: its manifest.
        options: of the new build.
        cohort: the studies that the call names.
        has_key: whether ids are pseudonyms, which say by themselves whose they are.

    Raises:
        ValueError: other options; or, without a key, studies of the records that the call's sources
            lack: nobody could tell whether a new study is of a patient who is there already.
    """
    changed = [
        f"{name} {getattr(base.options, name)} (here {value})"
        for name, value in options.model_dump().items()
        if getattr(base.options, name) != value
    ]
    if changed:
        raise ValueError(f"{out} was built with other options: {', '.join(changed)}.")
    absent = sorted({each.study_id for each in base.studies} - {each.study_id for each in cohort.jobs})
    if absent and not has_key:
        raise ValueError(
            f"--data must also hold the studies that are in {out} already, so that a patient's studies stay "
            f"in one fold: their patient ids are in no record. Absent: {len(absent)}, {absent[0]} first. "
            "Records under pseudonyms (--pseudonym-key-file) need no old data."
        )


def studies_to_add(
    jobs: Sequence[CohortStudy], base: Manifest | None, *, is_resumed: bool
) -> tuple[CohortStudy, ...]:
    """Returns the studies that records lack.

    Args:
        jobs: the call's studies.
        base: the records' manifest, None where there are none.
        is_resumed: whether a finished build is asked to go on, which has nothing to do: what it could not
            use it has had its try at. When studies are added, such a study is tried again.

    Raises:
        ValueError: a finished build is to go on with studies that it never saw.
    """
    if base is None:
        return tuple(jobs)
    known = {each.study_id for each in base.studies}
    lacking = tuple(each for each in jobs if each.study_id not in known)
    if not is_resumed:
        return lacking
    tried = {each.study_id for each in base.rejects if each.reason in _WITHOUT_SLICES}
    unseen = [each.study_id for each in lacking if each.study_id not in tried]
    if unseen:
        raise ValueError(
            f"The records are finished without {len(unseen)} of these studies, {unseen[0]} first. "
            "Add them with --append."
        )
    return ()


def next_shard_index(base: Manifest | None) -> int:
    """Returns the first number that no shard of the records has."""
    shards = [shard for each in (base.planes.values() if base else ()) for shard in each]
    return max((shard.index for shard in shards), default=-1) + 1
