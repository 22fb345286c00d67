"""`python -m lumbar_tf.build_records`: records from DICOM studies and tables."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, PositiveInt

import lumbar_tf
from lumbar_tf.cli.command import CommaList, CommandOptions, PathList, UsageError, run_command
from lumbar_tf.cli.console import Summary
from lumbar_tf.cli.progress import show_activity

#: Flags that say what happens to records that are there already.
_MODES = ("resume", "append", "overwrite")


class BuildRecordsOptions(CommandOptions):
    """Builds TFRecord shards, folds and a manifest from DICOM studies.

    Files that cannot be used are left out and listed in manifest.json with a reason code; docs/ingestion.md
    explains all codes. The bytes of the records depend neither on workers and runner nor on interruptions.
    """

    data: PathList = Field(
        (),
        description="Folder or zip, or several, comma-separated or in one flag each: the unzipped "
        "competition data (train_images/ and the CSV tables beside it), or an export of a PACS: one study, a "
        "folder of studies, nested folders, a DICOMDIR.",
    )
    out: Path = Field(
        Path("tfrecords"),
        description="Folder for the records.",
    )
    workers: PositiveInt = Field(
        1,
        description="Number of processes that read studies.",
    )
    runner: Literal["local", "ray"] = Field(
        "local",
        description="Place of the processes: local or ray.",
    )
    ray_address: str | None = Field(
        None,
        description="Running Ray cluster, auto or HOST:PORT. By default one is started on this machine.",
    )
    resume: bool = Field(
        False,
        description="Continue an interrupted build; needs the same options as its start.",
    )
    append: bool = Field(
        False,
        description="Add the studies that the records lack, in new shards.",
    )
    overwrite: bool = Field(
        False,
        description="Replace existing records.",
    )
    forget: CommaList = Field(
        (),
        description="Remove the patients of these studies, comma-separated, from finished records, and do "
        "nothing else. Needs --out, and the key if ids are pseudonyms.",
    )
    strict: bool = Field(
        False,
        description="Stop at the first fault in the input. By default it is left out and listed.",
    )
    series_map: Path | None = Field(
        None,
        description="CSV file study_id,series_id,series_description that overrides tables and headers: "
        "`Sagittal T1`, `Sagittal T2/STIR`, `Axial T2`, or `none` to exclude a series.",
    )
    pseudonym_key_file: Path | None = Field(
        None,
        description="Replace study, series and patient ids by hashes keyed with this file (32 bytes or "
        "more; `openssl rand -hex 32`).",
    )
    studies_per_shard: PositiveInt = Field(
        16,
        description="Number of studies in a shard; 16 make about 400 MB a plane for full-size studies.",
    )
    codec: Literal["raw", "png"] = Field(
        "raw",
        description="Encoding of images: raw (fastest) or png (about half the size).",
    )
    decoder: str = Field(
        "pydicom",
        description="DICOM decoder: pydicom, or tfio (needs the extra [tfio]).",
    )
    folds: PositiveInt = Field(
        5,
        description="Number of folds; 1 puts all patients into fold 0.",
    )
    fold_seed: int = Field(
        0,
        description="Seed that shuffles patients with about equal numbers of findings.",
    )
    folds_file: Path | None = Field(
        None,
        description="CSV file study_id,fold_id or study_id,fold with folds 0, 1, ... of your own, instead of "
        "--folds and --fold-seed. A patient must be in one fold.",
    )

    after_interrupt: ClassVar[str] = (
        "Finished shards stay, and there is no manifest.json yet. Go on with the same flags and --resume "
        "(in place of --append or --overwrite); --forget is finished by the same command."
    )


def run_build_records(options: BuildRecordsOptions) -> Summary:
    """Builds the records, or removes patients from them."""
    modes = [mode for mode in _MODES if getattr(options, mode)]
    if len(modes) + bool(options.forget) > 1:
        raise UsageError("Only one of --resume, --append, --overwrite and --forget can be given.")
    if options.forget:
        return _remove_patients(options)
    if not options.data:
        raise UsageError("--data must name a folder or a zip. Received: none.")
    if options.folds_file is not None and options.model_fields_set & {"folds", "fold_seed"}:
        raise UsageError("--folds-file must not be given together with --folds or --fold-seed.")
    records = lumbar_tf.build_records(
        options.data,
        options.out,
        mode=modes[0] if modes else "new",
        workers=options.workers,
        runner=options.runner,
        ray_address=options.ray_address,
        strict=options.strict,
        series_map=options.series_map,
        pseudonym_key_file=options.pseudonym_key_file,
        studies_per_shard=options.studies_per_shard,
        codec=options.codec,
        decoder=options.decoder,
        folds=options.folds,
        fold_seed=options.fold_seed,
        folds_file=options.folds_file,
        verbose=True,
    )
    return Summary(
        "Records built",
        {
            "studies": len(records.study_ids),
            "patients": records.num_patients,
            **{str(plane["plane"]): _plane_words(plane) for plane in records.planes},
            "left out or noted": [f"{count} x {reason}" for reason, count in records.reject_counts.items()],
        },
        {"records": options.out, "manifest": records.path},
        lists={"planes": records.planes},
    )


def _remove_patients(options: BuildRecordsOptions) -> Summary:
    if options.data:
        raise UsageError("--forget works on finished records and does not use --data.")
    with show_activity("Removing patients"):
        gone = lumbar_tf.forget_patients(
            options.out, options.forget, pseudonym_key_file=options.pseudonym_key_file
        )
    return Summary("Patients removed", {"studies removed": len(gone), "ids": gone}, {"records": options.out})


def _plane_words(plane: Mapping[str, Any]) -> str:
    size_mb = plane["bytes"] / 1e6
    return (
        f"{plane['records']:6,} records {plane['slices']:8,} slices {plane['shards']:5,} shards "
        f"{size_mb:9,.1f} MB"
    )


if __name__ == "__main__":
    run_command(BuildRecordsOptions, run_build_records)
