"""`python -m lumbar_tf.build_records`: records from DICOM studies and tables."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import PositiveInt

from lumbar_tf.cli.command import CommaList, CommandOptions, UsageError, run_command
from lumbar_tf.cli.console import Summary
from lumbar_tf.cli.progress import progress_bar, show_activity
from lumbar_tf.records.schema import PixelEncoding
from lumbar_tf.runners import Runner

if TYPE_CHECKING:
    from lumbar_tf.records.build import BuildMode
    from lumbar_tf.records.manifest import Manifest


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
    runner: Runner = Runner.LOCAL
    ray_address: str | None = None
    resume: bool = False
    append: bool = False
    overwrite: bool = False
    forget: CommaList = ()
    strict: bool = False
    series_map: Path | None = None
    pseudonym_key_file: Path | None = None
    studies_per_shard: PositiveInt = 16
    codec: PixelEncoding = PixelEncoding.RAW
    decoder: str = "pydicom"
    folds: PositiveInt = 5
    fold_seed: int = 0

    after_interrupt: ClassVar[str] = (
        "Finished shards stay, and there is no manifest.json yet. Go on with the same flags and --resume "
        "(in place of --append or --overwrite); --forget is finished by the same command."
    )


def build(options: BuildRecordsOptions) -> Summary:
    """Builds the records, or removes patients."""
    # Imported here so that --help is fast.
    from lumbar_tf.dicom.files.decoders import Decoder, frame_decoder
    from lumbar_tf.privacy.pseudonyms import read_key
    from lumbar_tf.records.build import BuildTask, run_build_task
    from lumbar_tf.records.manifest import BuildOptions

    mode = _mode(options)
    key = read_key(options.pseudonym_key_file) if options.pseudonym_key_file else None
    if options.forget:
        return _remove_patients(options, key)
    if not options.data:
        raise UsageError("--data must name a folder or a zip. Received: none.")
    decoder = Decoder(options.decoder)
    frame_decoder(decoder)  # fails here rather than in a worker if the decoder cannot be loaded
    manifest = run_build_task(
        BuildTask(
            sources=[Path(each) for each in options.data],
            out=options.out,
            options=BuildOptions(
                studies_per_shard=options.studies_per_shard,
                num_folds=options.folds,
                fold_seed=options.fold_seed,
                codec=options.codec,
                decoder=decoder.value,
                is_pseudonymised=key is not None,
            ),
            mode=mode,
            series_map=options.series_map,
            key=key,
            is_strict=options.strict,
        ),
        workers=options.workers,
        runner=options.runner,
        ray_address=options.ray_address,
        progress=lambda total: progress_bar("Building records", total),
    )
    return _summarise(manifest, options.out)


def _mode(options: BuildRecordsOptions) -> "BuildMode":
    from lumbar_tf.records.build import BuildMode

    modes = [mode for mode in BuildMode if getattr(options, mode.value, False)]
    if len(modes) + bool(options.forget) > 1:
        raise UsageError("Only one of --resume, --append, --overwrite and --forget can be given.")
    return modes[0] if modes else BuildMode.NEW


def _remove_patients(options: BuildRecordsOptions, key: bytes | None) -> Summary:
    from lumbar_tf.records.patients import remove_patients

    if options.data:
        raise UsageError("--forget works on finished records and does not use --data.")
    with show_activity("Removing patients"):
        removed = remove_patients(options.out, options.forget, key=key)
    return Summary(
        "Patients removed", {"studies removed": len(removed), "ids": removed}, {"records": options.out}
    )


def _summarise(manifest: "Manifest", out: Path) -> Summary:
    from lumbar_tf.records.manifest import MANIFEST_NAME

    planes = [
        {
            "plane": plane,
            "records": sum(shard.num_examples for shard in shards),
            "slices": sum(study.num_slices.get(plane, 0) for study in manifest.studies),
            "shards": len(shards),
            "bytes": sum(shard.size_bytes for shard in shards),
        }
        for plane, shards in manifest.planes.items()
    ]
    reasons = Counter(reject.reason for reject in manifest.rejects)
    return Summary(
        "Records built",
        {
            "studies": len(manifest.studies),
            "patients": len(set(manifest.patient_groups.values())),
            **{str(plane["plane"]): _describe_plane(plane) for plane in planes},
            "left out or noted": [f"{count} x {reason}" for reason, count in sorted(reasons.items())],
        },
        {"records": out, "manifest": out / MANIFEST_NAME},
        lists={"planes": planes},
    )


def _describe_plane(plane: Mapping[str, Any]) -> str:
    size_mb = plane["bytes"] / 1e6
    return (
        f"{plane['records']:6,} records {plane['slices']:8,} slices {plane['shards']:5,} shards "
        f"{size_mb:9,.1f} MB"
    )


if __name__ == "__main__":
    run_command(BuildRecordsOptions, build)
