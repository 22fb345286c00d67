"""`python -m lumbar_tf.build_records`: DICOM studies and tables to sharded records."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import PositiveInt

from lumbar_tf.cli import CommaList, CommandOptions, run_command
from lumbar_tf.progress import progress_bar
from lumbar_tf.runners import Runner

if TYPE_CHECKING:
    from lumbar_tf.records.manifest import Manifest


class BuildRecordsOptions(CommandOptions):
    """Builds TFRecord shards, folds and a manifest from DICOM studies.

    Flags:
        --data               One folder or zip, or several with commas: the competition's folder as it
                             is unzipped (train_images/ and the CSV tables beside it), a folder of
                             studies, or one study. Study ids must be distinct.
        --out                Where the records go (tfrecords).
        --workers            Processes that read studies (1).
        --studies-per-shard  Studies in one shard (16: about 100 MB a plane for full-size studies).
        --folds              Folds to deal the patients to (5); 1 puts all in fold 0.
        --fold-seed          Shuffles patients whose findings weigh about the same (0).
        --runner             Where the workers run: local.

    Files that cannot be used are left out and listed in manifest.json with a reason. The shards do not
    depend on the number of workers.
    """

    data: CommaList
    out: Path = Path("tfrecords")
    workers: PositiveInt = 1
    studies_per_shard: PositiveInt = 16
    folds: PositiveInt = 5
    fold_seed: int = 0
    runner: Runner = Runner.LOCAL


def build(options: BuildRecordsOptions) -> None:
    """Builds the records and prints what was made."""
    # Here, not above: TensorFlow takes seconds to import, and --help must not wait for it.
    from lumbar_tf.data.build import build_records
    from lumbar_tf.records.manifest import BuildOptions

    started = time.monotonic()
    manifest = build_records(
        [Path(each) for each in options.data],
        options.out,
        BuildOptions(
            studies_per_shard=options.studies_per_shard,
            num_folds=options.folds,
            fold_seed=options.fold_seed,
        ),
        workers=options.workers,
        runner=options.runner,
        progress=lambda total: progress_bar("Building records", total),
    )
    _print_summary(manifest, options.out, time.monotonic() - started)


def _print_summary(manifest: "Manifest", out: Path, seconds: float) -> None:
    patients = len({each.patient_group for each in manifest.studies})
    print(f"{len(manifest.studies)} studies of {patients} patients in {seconds:.1f} s -> {out}")
    for plane, shards in manifest.planes.items():
        slices = sum(each.num_slices.get(plane, 0) for each in manifest.studies)
        size_mb = sum((out / each.file).stat().st_size for each in shards) / 1e6
        records = sum(each.num_examples for each in shards)
        print(f"  {plane:12} {records:6} records {slices:8} slices {len(shards):5} shards {size_mb:9.1f} MB")
    reasons: dict[str, int] = {}
    for reject in manifest.rejects:
        reasons[reject.reason] = reasons.get(reject.reason, 0) + 1
    for reason, count in sorted(reasons.items()):
        print(f"  left out or noted: {count} x {reason} (see manifest.json)")


if __name__ == "__main__":
    run_command(BuildRecordsOptions, build)
