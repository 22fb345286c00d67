"""`python -m lumbar_tf.export`: the trained ensemble as one bundle that TF Serving serves."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import PositiveInt

from lumbar_tf.cli.command import CommaList, CommandOptions, UsageError, existing_file, run_command
from lumbar_tf.cli.console import Summary
from lumbar_tf.cli.progress import show_activity

if TYPE_CHECKING:
    from lumbar_tf.bundle.model_card import Measured


class ExportOptions(CommandOptions):
    """Writes the ensemble as a bundle that TF Serving serves, and tests it before its version appears.

    Flags:
        --runs       Folder of the runs (runs).
        --stacker    stacker.json, as lumbar_tf.stack wrote it (runs/stack/stacker.json).
        --out        Folder of versions (models/lumbar).
        --version    Version number; the next free one by default.
        --members    Only these, with commas between them (sagittal_t2/densenet_narrow,...): the stacker is
                     fitted anew to their out-of-fold tables, which takes --labels.
        --labels     The label table train.csv, or several with commas between them: for --members, and for
                     the model card's out-of-fold scores.
        --metrics    metrics.json of lumbar_tf.evaluate on held-out studies, for the model card.
        --data       Where the training studies came from, in words, for the model card.
        --synthetic  They are synthetic: the model card says so first.
        --nosaliency Leave out the signature that says where in the pictures the answers came from: it makes
                     the bundle a third slower to load and to answer its first request.
        --records    What it was trained on (tfrecords, where there are any): for reference.json, which
                     lumbar_tf.monitor compares with.

    A bundle that fails its self-test (a known study, its mirror image, each missing plane) is not written.
    Research use, not a medical device.
    """

    runs: Path = Path("runs")
    stacker: Path | None = None
    out: Path = Path("models/lumbar")
    version: PositiveInt | None = None
    members: CommaList = ()
    labels: CommaList = ()
    metrics: Path | None = None
    data: str = ""
    synthetic: bool = False
    saliency: bool = True
    records: Path = Path("tfrecords")

    after_interrupt: ClassVar[str] = "No version has appeared. Run the same command again."


def export(options: ExportOptions) -> Summary:
    """Exports and says where."""
    # Here, not above: TensorFlow takes seconds to import, and --help must not wait for it.
    from lumbar_tf.bundle.exporting import export_ensemble
    from lumbar_tf.bundle.loading import CARD_NAME, EXTRA
    from lumbar_tf.bundle.model_card import ModelFacts
    from lumbar_tf.bundle.trained_ensemble import load_trained_ensemble
    from lumbar_tf.monitoring.bundle_reference import reference_writer
    from lumbar_tf.training.runs import OOF_NAME

    with _stacker(options) as stacker:
        with show_activity("Loading the networks"):
            ensemble = load_trained_ensemble(options.runs, stacker)
        with show_activity("Scoring out of fold"):
            facts = ModelFacts(options.data, options.synthetic, _measure(options, stacker.parent))
        tables = [options.runs / member / OOF_NAME for member in ensemble.stacker.members]
        with show_activity("Writing and testing the bundle"):
            path = export_ensemble(
                ensemble,
                options.runs,
                options.out,
                version=options.version,
                facts=facts,
                add=reference_writer(stacker.parent, tables, options.records),
                has_saliency=options.saliency,
            )
    size_mb = sum(each.stat().st_size for each in path.rglob("*") if each.is_file()) / 1e6
    return Summary(
        "Exported",
        {"version": path.name, "members": ensemble.stacker.members, "size": f"{size_mb:,.1f} MB"},
        {"bundle": path, "model card": path / EXTRA / CARD_NAME},
    )


@contextmanager
def _stacker(options: ExportOptions) -> Iterator[Path]:
    """Lends the stacker of the members that are wanted: the one there is, or one that is fitted now."""
    from lumbar_tf.bundle.trained_ensemble import stack_subset
    from lumbar_tf.ensemble.stacker_json import stacker_from_json
    from lumbar_tf.ensemble.stacking_run import STACKER_NAME, write_stacking_run

    path = existing_file(options.stacker or options.runs / "stack" / STACKER_NAME)
    known = stacker_from_json(path.read_text(encoding="utf-8")).members
    if not options.members or set(options.members) == set(known):
        yield path
        return
    if not options.labels:
        raise UsageError(
            "--members needs --labels: weights that were fitted beside other members, and the calibration "
            "of their sum, are wrong without them. "
            f"Received: {', '.join(options.members)} of {', '.join(known)}."
        )
    blend = stack_subset(options.runs, options.members, _label_paths(options), path.parent)
    with tempfile.TemporaryDirectory() as folder:
        write_stacking_run(blend, Path(folder))
        yield Path(folder) / STACKER_NAME


def _label_paths(options: ExportOptions) -> list[Path]:
    return [existing_file(Path(name)) for name in options.labels]


def _measure(options: ExportOptions, stack: Path) -> "list[Measured]":
    """Returns the figures for the model card."""
    from lumbar_tf.bundle.model_card import Measured
    from lumbar_tf.evaluation.evaluation_run import measure_out_of_fold
    from lumbar_tf.tables.labels import read_label_tables

    measured = []
    if options.labels:
        measured.append(measure_out_of_fold(stack, *read_label_tables(_label_paths(options))))
    if options.metrics:
        content = json.loads(existing_file(options.metrics).read_text(encoding="utf-8"))
        measured.append(Measured("Held out: studies that had no part in training", content, {}))
    return measured


if __name__ == "__main__":
    run_command(ExportOptions, export)
