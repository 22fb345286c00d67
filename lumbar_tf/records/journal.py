"""The journal of a build that is not finished: which parts are done.

It lies in `.build` beside the shards and is gone once the manifest is written. A part's entry is
written after its shards are on the disk under their own names, so whatever moment a build is killed
at, an entry speaks of shards that are there; a part without an entry is built again, to the same bytes.
It holds what the manifest will hold, and no more of a patient.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from lumbar_tf.files import file_sha256, lock_file, remove_unfinished, write_text_atomically
from lumbar_tf.labels import Plane
from lumbar_tf.records.manifest import RejectEntry, Shard, StudyEntry

JOURNAL_NAME = ".build"
_PLAN_NAME = "plan.json"
_LOCK_NAME = "lock"


class Plan(BaseModel):
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


class Part(BaseModel):
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


def has_journal(folder: Path) -> bool:
    """Whether a build of the records in this folder was begun and not finished."""
    return (folder / JOURNAL_NAME / _PLAN_NAME).is_file()


def read_plan(folder: Path) -> Plan | None:
    """Returns the plan of the unfinished build, None where there is none.

    Raises:
        ValueError: it is damaged.
    """
    path = folder / JOURNAL_NAME / _PLAN_NAME
    if not path.is_file():
        return None
    try:
        return Plan.model_validate_json(path.read_bytes())
    except ValidationError:
        raise ValueError(f"{path} is damaged; build anew with --overwrite.") from None


def write_plan(folder: Path, plan: Plan) -> None:
    """Opens the journal."""
    _write(folder / JOURNAL_NAME / _PLAN_NAME, plan)


def read_part(folder: Path, index: int, fingerprint: str) -> Part | None:
    """Returns a part that is done and still as it was, None where it has to be built (again).

    Args:
        folder: where the records are.
        index: the part's number.
        fingerprint: what it would be made from now.
    """
    path = _part_path(folder, index)
    try:
        part = Part.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    if part.fingerprint != fingerprint:
        return None
    is_whole = all(_matches(folder, shard) for shard in part.shards.values())
    return part if is_whole else None


def _matches(folder: Path, shard: Shard) -> bool:
    path = folder / shard.file
    return path.is_file() and file_sha256(path) == shard.sha256


def write_part(folder: Path, part: Part) -> None:
    """Enters a part whose shards are on the disk."""
    _write(_part_path(folder, part.index), part)


def _part_path(folder: Path, index: int) -> Path:
    return folder / JOURNAL_NAME / f"part-{index:05d}.json"


def _write(path: Path, entry: BaseModel) -> None:
    write_text_atomically(path, entry.model_dump_json())


def remove_journal(folder: Path) -> None:
    """Closes the journal: the plan goes first, so that a kill in between leaves no half of one."""
    (folder / JOURNAL_NAME / _PLAN_NAME).unlink(missing_ok=True)
    shutil.rmtree(folder / JOURNAL_NAME, ignore_errors=True)


@contextmanager
def lock_records(folder: Path) -> Iterator[None]:
    """Keeps a second build out of the folder for as long as the block runs.

    Nobody else makes files there then, so what killed processes left of theirs goes: those of an earlier
    build, and at the end those that died on the way.

    Raises:
        ValueError: another process is building there.
    """
    place = folder / JOURNAL_NAME
    place.mkdir(parents=True, exist_ok=True)
    busy_message = f"{folder} must have one build at a time. Another one is running."
    with lock_file(place / _LOCK_NAME, busy_message=busy_message):
        _sweep(folder)
        try:
            yield
        finally:
            _sweep(folder)
            if not has_journal(folder):
                shutil.rmtree(place, ignore_errors=True)


def _sweep(folder: Path) -> None:
    for place in (folder, folder / JOURNAL_NAME, *(folder / plane.value for plane in Plane)):
        remove_unfinished(place)
