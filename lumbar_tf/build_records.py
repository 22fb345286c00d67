"""`python -m lumbar_tf.build_records`: records from DICOM studies and tables."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import PositiveInt

import lumbar_tf
from lumbar_tf.cli.command import CommaList, CommandOptions, UsageError, run_command
from lumbar_tf.cli.console import Summary
from lumbar_tf.cli.progress import show_activity

#: Flags that say what happens to records that are there already.
_MODES = ("resume", "append", "overwrite")


class BuildRecordsOptions(CommandOptions):
    """Builds TFRecord shards, folds and a manifest from DICOM studies.

    Flags:
        --data                One folder or zip, or several with commas: the competition's folder as it is
                              unzipped (train_images/ and the CSV tables beside it), or anything that a PACS
                              exports: one study, a folder of studies, nested folders, a DICOMDIR.
        --out                 Where the records go (tfrecords).
        --workers             Processes that read studies (1).
        --runner              Where they run: local or ray (local).
        --ray-address         A Ray cluster that is there, "auto" or HOST:PORT; by default one is started
                              on this machine.
        --resume              Go on with a build that was cut off, with the flags that it was begun with.
        --append              Add the studies that the records lack, in new shards.
        --overwrite           Replace the records that are there.
        --forget              Remove the patients of these studies (with commas) from finished records, and
                              do nothing else: needs --out only, and the key where ids are pseudonyms.
        --strict              Make the first fault in the input fatal; by default it is left out and listed.
        --series-map          A CSV study_id,series_id,series_description that overrides tables and headers:
                              `Sagittal T1`, `Sagittal T2/STIR`, `Axial T2` or `none` to leave a series out.
        --pseudonym-key-file  Replace study, series and patient ids by hashes keyed with this file (32 bytes
                              or more; `openssl rand -hex 32`).
        --studies-per-shard   Studies in one shard (16: about 400 MB a plane for full-size studies).
        --codec               How records hold images: raw (fastest) or png (about half of the size).
        --decoder             What decodes DICOM: pydicom, or tfio (needs the extra [tfio]).
        --folds               Folds to deal the patients to (5); 1 puts all in fold 0.
        --fold-seed           Shuffles patients whose findings weigh about the same (0).

    What cannot be used is left out and listed in manifest.json with a reason code; docs/ingestion.md has
    them all. The bytes of the records do not depend on workers, runner or interruptions.
    """

    data: CommaList = ()
    out: Path = Path("tfrecords")
    workers: PositiveInt = 1
    runner: Literal["local", "ray"] = "local"
    ray_address: str | None = None
    resume: bool = False
    append: bool = False
    overwrite: bool = False
    forget: CommaList = ()
    strict: bool = False
    series_map: Path | None = None
    pseudonym_key_file: Path | None = None
    studies_per_shard: PositiveInt = 16
    codec: Literal["raw", "png"] = "raw"
    decoder: str = "pydicom"
    folds: PositiveInt = 5
    fold_seed: int = 0

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
