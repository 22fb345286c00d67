"""Adding studies to records that are there: which are new, and whether they fit what is there."""

from collections.abc import Sequence
from pathlib import Path

from lumbar_tf.dicom.reasons import RejectReason
from lumbar_tf.records.cohort import Cohort, CohortStudy
from lumbar_tf.records.manifest import BuildOptions, Manifest
from lumbar_tf.records.shards import part_index

#: What a manifest says of a study that is not in its records.
_WITHOUT_SLICES = frozenset({RejectReason.NO_SLICES.value, RejectReason.NOTHING_TO_GRADE.value})


def check_base(out: Path, base: Manifest, options: BuildOptions, cohort: Cohort, *, has_key: bool) -> None:
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


def next_part(base: Manifest | None) -> int:
    """Returns the first number that no shard of the records has."""
    shards = [shard for each in (base.planes.values() if base else ()) for shard in each]
    return max((part_index(shard.file) for shard in shards), default=-1) + 1
