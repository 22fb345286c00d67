"""Records of a cohort: their making, the removal of patients, and their verification."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lumbar_tf.api.arguments import PathLike, Paths, existing, optional_path, paths_of, progress_of
from lumbar_tf.cli.arguments import UsageError
from lumbar_tf.records.manifest import MANIFEST_NAME, Manifest
from lumbar_tf.runners import Runner

if TYPE_CHECKING:
    import pandas as pd

    from lumbar_tf.records.cohort import Cohort
    from lumbar_tf.records.issues import RecordIssue
    from lumbar_tf.records.verification import Verification


@dataclass(frozen=True, eq=False)
class RecordsResult:
    """Records that were written.

    Attributes:
        folder: folder of the records.
        manifest: content of `manifest.json` (not part of the public API).
    """

    folder: Path
    manifest: Manifest

    @property
    def path(self) -> Path:
        """The manifest's file."""
        return self.folder / MANIFEST_NAME

    @property
    def study_ids(self) -> tuple[str, ...]:
        """Ids of the studies."""
        return tuple(study.study_id for study in self.manifest.studies)

    @property
    def num_patients(self) -> int:
        """Number of patients."""
        return len({study.patient_group for study in self.manifest.studies})

    @property
    def reject_counts(self) -> dict[str, int]:
        """Number of rejects by reason code."""
        return dict(sorted(Counter(reject.reason for reject in self.manifest.rejects).items()))

    @property
    def planes(self) -> list[dict[str, object]]:
        """Number of records, slices, shards and bytes of each plane."""
        return [
            {
                "plane": plane,
                "records": sum(shard.num_examples for shard in shards),
                "slices": sum(study.num_slices.get(plane, 0) for study in self.manifest.studies),
                "shards": len(shards),
                "bytes": sum(shard.size_bytes for shard in shards),
            }
            for plane, shards in self.manifest.planes.items()
        ]

    def to_frame(self) -> "pd.DataFrame":
        """Returns the rejects as a table: study, series, file, reason, kind and message."""
        import pandas as pd

        return pd.DataFrame([reject.model_dump() for reject in self.manifest.rejects])


def build_records(
    data: Paths,
    out: PathLike = "tfrecords",
    *,
    mode: str = "new",
    workers: int = 1,
    runner: str | Runner = Runner.LOCAL,
    ray_address: str | None = None,
    strict: bool = False,
    series_map: PathLike | None = None,
    pseudonym_key_file: PathLike | None = None,
    studies_per_shard: int = 16,
    codec: str = "raw",
    decoder: str = "pydicom",
    folds: int = 5,
    fold_seed: int = 0,
    folds_file: PathLike | None = None,
    verbose: bool = False,
) -> RecordsResult:
    """Builds TFRecord shards, folds and a manifest from DICOM studies and label tables.

    The bytes of the records depend neither on workers and runner nor on interruptions.

    Args:
        data: folders or zips of studies, with the competition's tables beside them where there are any.
        out: folder of the records.
        mode: "new"; "resume" an interrupted build; "append" studies that the records lack; "overwrite".
        workers: number of processes.
        runner: "local" or "ray".
        ray_address: a running Ray cluster; by default one is started on this machine.
        strict: whether the first fault in the input is fatal.
        series_map: a CSV file `study_id,series_id,series_description` that overrides tables and headers.
        pseudonym_key_file: file with the key of pseudonyms that replace ids.
        studies_per_shard: number of studies in one shard.
        codec: "raw" or "png", the encoding of images.
        decoder: "pydicom" or "tfio".
        folds: number of folds; 1 puts all studies into fold 0.
        fold_seed: seed of the folds.
        folds_file: a CSV file `study_id,fold_id` or `study_id,fold` with folds 0, 1, ... that replaces
            `folds` and `fold_seed`. Every study must have a fold, and a patient's studies the same one.
        verbose: whether progress is shown on stderr.

    Raises:
        ValueError: no study is usable, records are in the way, the folds do not fit the studies, or with
            `strict` there is a fault.
    """
    from lumbar_tf.dicom.files.decoders import Decoder, frame_decoder
    from lumbar_tf.privacy.pseudonyms import read_key
    from lumbar_tf.records.build import BuildMode, BuildTask, run_build_task
    from lumbar_tf.records.manifest import BuildOptions
    from lumbar_tf.records.schema import PixelEncoding

    key = None if pseudonym_key_file is None else read_key(Path(pseudonym_key_file))
    chosen = Decoder(decoder)
    frame_decoder(chosen)  # fails here, not in a worker, if it cannot be loaded
    given = None if folds_file is None else _read_folds_file(Path(folds_file), key)
    manifest = run_build_task(
        BuildTask(
            sources=paths_of(data),
            out=Path(out),
            options=BuildOptions(
                studies_per_shard=studies_per_shard,
                num_folds=folds if given is None else max(given.values()) + 1,
                fold_seed=fold_seed,
                codec=PixelEncoding(codec),
                decoder=chosen.value,
                is_pseudonymised=key is not None,
            ),
            mode=BuildMode(mode),
            series_map=optional_path(series_map),
            key=key,
            folds=given,
            is_strict=strict,
        ),
        workers=workers,
        runner=Runner(runner),
        ray_address=ray_address,
        progress=progress_of("Building records", verbose=verbose),
    )
    return RecordsResult(Path(out), manifest)


def _read_folds_file(path: Path, key: bytes | None) -> dict[str, int]:
    """Returns the fold by study id, or by pseudonym if there is a key."""
    from lumbar_tf.privacy.pseudonyms import IdKind, pseudonym
    from lumbar_tf.tables.folds import read_fold_table

    folds = read_fold_table(path)
    if not folds:
        raise ValueError(f"{path.name} must give each study a fold. Received: no study.")
    if key is None:
        return folds
    return {pseudonym(key, IdKind.STUDY, study_id): fold for study_id, fold in folds.items()}


def forget_patients(
    records: PathLike, study_ids: Sequence[str], *, pseudonym_key_file: PathLike | None = None
) -> tuple[str, ...]:
    """Removes the patients of some studies from finished records; returns the ids of all removed studies.

    Args:
        records: folder of the records.
        study_ids: ids in the source.
        pseudonym_key_file: the key file, where the records hold pseudonyms.
    """
    from lumbar_tf.privacy.pseudonyms import read_key
    from lumbar_tf.records.patients import remove_patients

    key = None if pseudonym_key_file is None else read_key(Path(pseudonym_key_file))
    return remove_patients(Path(records), study_ids, key=key)


@dataclass(frozen=True, eq=False)
class VerificationResult:
    """Faults of a folder of records.

    Attributes:
        faults: the faults, each with `file`, `study_id`, `code` and `message`.
        num_records: number of sound records; None where the folder holds none.
        num_studies: number of studies with a sound record.
        num_shards: number of shards.
        num_phrases: number of identifying phrases that were searched for.
        num_source_studies: number of studies of the source.
        num_unread: number of files of the source whose headers could not be read.
    """

    faults: "tuple[RecordIssue, ...]"
    num_records: int | None
    num_studies: int = 0
    num_shards: int = 0
    num_phrases: int | None = None
    num_source_studies: int = 0
    num_unread: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """Number of faults by code."""
        return dict(sorted(Counter(fault.code.value for fault in self.faults).items()))


def verify(
    records: PathLike = "tfrecords",
    *,
    data: Paths = (),
    phi: bool = False,
    workers: int = 1,
    series_map: PathLike | None = None,
    pseudonym_key_file: PathLike | None = None,
    verbose: bool = False,
) -> VerificationResult:
    """Checks records by themselves, against their source, and for identifying text.

    Args:
        records: folder of the records; with `phi` any other output, such as that of `predict`.
        data: the source that was given to `build_records`: every study is read and encoded again, and
            compared byte for byte.
        phi: whether every file is searched for the names, dates, numbers and texts in the source's headers.
        workers: number of processes.
        series_map: the one given to `build_records`.
        pseudonym_key_file: the one given to `build_records`.
        verbose: whether progress is shown on stderr.

    Raises:
        ValueError: the folder or the source cannot be read, or an argument does not fit the records.
    """
    from lumbar_tf.privacy.pseudonyms import read_key
    from lumbar_tf.records.cohort import open_cohort

    sources = paths_of(data)
    if not sources and (phi or series_map or pseudonym_key_file):
        raise UsageError("`phi`, `series_map` and `pseudonym_key_file` must come with the source, `data`.")
    table = None if series_map is None else existing(Path(series_map))
    key = None if pseudonym_key_file is None else read_key(Path(pseudonym_key_file))
    folder = Path(records)
    verification = _verify_records(folder, phi=phi, workers=workers, verbose=verbose)
    found = list(verification.found) if verification else []
    num_phrases, num_studies, num_unread = None, 0, 0
    if sources:
        with open_cohort(sources, series_map=table, key=key) as cohort:
            num_studies = len(cohort.jobs)
            if verification:
                found += _verify_source(folder, verification, cohort, key, workers=workers, verbose=verbose)
            if phi:
                faults, num_phrases, num_unread = _scan(
                    folder, cohort, are_ids_secret=key is not None, workers=workers, verbose=verbose
                )
                found += faults
    stored = verification.records if verification else ()
    return VerificationResult(
        faults=tuple(found),
        num_records=len(stored) if verification else None,
        num_studies=len({record.study_id for record in stored}),
        num_shards=len({record.file for record in stored}),
        num_phrases=num_phrases,
        num_source_studies=num_studies,
        num_unread=num_unread,
    )


def _verify_records(folder: Path, *, phi: bool, workers: int, verbose: bool) -> "Verification | None":
    """Checks the folder by itself; None where it holds no records and only text is searched for."""
    from lumbar_tf.records.table_check import check_tables
    from lumbar_tf.records.verification import Verification, holds_records, verify_records

    if phi and folder.is_dir() and not holds_records(folder):
        return None
    verification = verify_records(
        folder, workers=workers, progress=progress_of("Reading shards", verbose=verbose, unit="shard")
    )
    faults = check_tables(folder, verification)
    return Verification(verification.manifest, verification.records, (*verification.found, *faults))


def _verify_source(
    folder: Path,
    verification: "Verification",
    cohort: "Cohort",
    key: bytes | None,
    *,
    workers: int,
    verbose: bool,
) -> "Sequence[RecordIssue]":
    from functools import partial

    from lumbar_tf.records.cohort import make_study_records
    from lumbar_tf.records.source_check import verify_source

    if verification.manifest is None:
        return ()
    built = verification.manifest.options
    if built.is_pseudonymised != (key is not None):
        holds = "hold" if built.is_pseudonymised else "do not hold"
        raise UsageError(
            "`pseudonym_key_file` must be given if and only if the records hold pseudonyms. "
            f"Received: records that {holds} pseudonyms."
        )
    return verify_source(
        folder,
        verification,
        cohort.jobs,
        partial(make_study_records, options=built, key=key),
        workers=workers,
        progress=progress_of("Reading the source", verbose=verbose),
    )


def _scan(
    folder: Path, cohort: "Cohort", *, are_ids_secret: bool, workers: int, verbose: bool
) -> "tuple[Sequence[RecordIssue], int, int]":
    """Returns identifying text, the number of phrases searched for, and of files without readable header."""
    from lumbar_tf.privacy.identifying_values import collect_identifying_values
    from lumbar_tf.records.identifying_text import find_identifying_text

    values = collect_identifying_values(
        [job.files for job in cohort.jobs],
        are_ids_secret=are_ids_secret,
        workers=workers,
        progress=progress_of("Reading headers", verbose=verbose),
    )
    found = find_identifying_text(
        folder, values, workers=workers, progress=progress_of("Searching", verbose=verbose, unit="file")
    )
    return found, len(values.tags), values.num_unread
