"""Export of a trained ensemble."""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lumbar_tf.api.arguments import PathLike, Paths, activity_of, existing, paths_of
from lumbar_tf.cli.arguments import UsageError

if TYPE_CHECKING:
    from lumbar_tf.bundle.model_card import Measured


@dataclass(frozen=True)
class ExportedBundle:
    """A bundle that was written; `load_ensemble` takes it like a path.

    Attributes:
        path: folder of the version.
        members: names of its networks.
        size_bytes: size of all its files.
        model_card: its model card, Markdown.
    """

    path: Path
    members: tuple[str, ...]
    size_bytes: int
    model_card: Path

    def __fspath__(self) -> str:
        return str(self.path)


def export(
    runs: PathLike = "runs",
    out: PathLike = "models/lumbar",
    *,
    stacker: PathLike | None = None,
    version: int | None = None,
    members: Sequence[str] = (),
    labels: Paths = (),
    metrics: PathLike | None = None,
    data: str = "",
    synthetic: bool = False,
    saliency: bool = True,
    compact: bool = False,
    records: PathLike = "tfrecords",
    sign_key_file: PathLike | None = None,
    verbose: bool = False,
) -> ExportedBundle:
    """Writes trained networks and stacker as a bundle, and tests it before its version appears.

    Args:
        runs: folder of the runs.
        out: folder of versions.
        stacker: `stacker.json`; by default `RUNS/stack/stacker.json`.
        version: version number; the next free one by default.
        members: restricts the ensemble to these networks; the stacker is fitted again to their out-of-fold
            tables, which needs `labels`.
        labels: label tables, for `members` and for the out-of-fold scores of the model card.
        metrics: `metrics.json` of `evaluate` on held-out studies, for the model card.
        data: origin of the training studies, for the model card and, shortened to a line, for all results.
        synthetic: whether the training studies are synthetic; also found from runs and records.
        saliency: whether the bundle can return saliency maps.
        compact: leave out what only TensorFlow Serving and other programs than this one need: its warm-up
            requests, and the inputs of the recorded requests.
        records: records that it was trained on, for the reference that `monitor` compares with, and for
            runs that do not contain whether their studies are synthetic.
        sign_key_file: PEM file of an Ed25519 private key that signs the bundle (extra `signing`); see
            `load_ensemble`.
        verbose: whether progress is shown on stderr.

    Raises:
        ValueError: networks or stacker are missing or do not fit, or the bundle fails its self-test.
    """
    from lumbar_tf.bundle.exporting import export_ensemble
    from lumbar_tf.bundle.model_card import ModelFacts
    from lumbar_tf.bundle.signing import read_signing_key
    from lumbar_tf.bundle.trained_ensemble import load_trained_ensemble
    from lumbar_tf.models.bundle_folder import CARD_NAME, EXTRA
    from lumbar_tf.monitoring.bundle_reference import reference_writer
    from lumbar_tf.training.runs import OOF_NAME, has_synthetic_studies

    # Read first: it may be absent or unreadable.
    key = None if sign_key_file is None else read_signing_key(Path(sign_key_file))
    folder, tables = Path(runs), [existing(path) for path in paths_of(labels)]
    with _chosen_stacker(folder, stacker, members, tables) as chosen:
        with activity_of("Loading the networks", verbose=verbose):
            ensemble = load_trained_ensemble(folder, chosen)
        with activity_of("Scoring out of fold", verbose=verbose):
            is_synthetic = synthetic or has_synthetic_studies(folder, ensemble.networks, Path(records))
            facts = ModelFacts(data, is_synthetic, _measured(chosen.parent, tables, metrics))
        member_tables = [folder / member / OOF_NAME for member in ensemble.stacker.members]
        with activity_of("Writing and testing the bundle", verbose=verbose):
            path = export_ensemble(
                ensemble,
                folder,
                Path(out),
                version=version,
                facts=facts,
                add=reference_writer(chosen.parent, member_tables, Path(records)),
                has_saliency=saliency,
                is_compact=compact,
                signing_key=key,
            )
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return ExportedBundle(path, ensemble.stacker.members, size, path / EXTRA / CARD_NAME)


@contextmanager
def _chosen_stacker(
    runs: Path, stacker: PathLike | None, members: Sequence[str], labels: Sequence[Path]
) -> Iterator[Path]:
    """Yields the stacker of the requested members: the given one, or one that is fitted to them now."""
    from lumbar_tf.bundle.trained_ensemble import stack_subset
    from lumbar_tf.ensemble.prediction_sets import COVERAGE
    from lumbar_tf.ensemble.stacker_json import stacker_from_json
    from lumbar_tf.ensemble.stacking_run import STACKER_NAME, write_stacking_run

    path = existing(runs / "stack" / STACKER_NAME if stacker is None else Path(stacker))
    known = stacker_from_json(path.read_text(encoding="utf-8"))
    if not members or set(members) == set(known.members):
        yield path
        return
    if not labels:
        raise UsageError(
            "`members` must come with `labels`: a stacker's weights and calibration are valid only for the "
            "members that it was fitted to, so it has to be fitted again. "
            f"Received: {', '.join(members)} of {', '.join(known.members)}."
        )
    coverage = COVERAGE if known.set_coverage is None else known.set_coverage
    run = stack_subset(runs, members, labels, path.parent, coverage=coverage)
    with tempfile.TemporaryDirectory() as folder:
        write_stacking_run(run, Path(folder))
        yield Path(folder) / STACKER_NAME


def _measured(stack_folder: Path, labels: Sequence[Path], metrics: PathLike | None) -> "list[Measured]":
    """Returns the scores for the model card."""
    from lumbar_tf.bundle.model_card import Measured
    from lumbar_tf.evaluation.evaluation_run import measure_out_of_fold
    from lumbar_tf.tables.labels import read_label_tables

    measured = []
    if labels:
        measured.append(measure_out_of_fold(stack_folder, *read_label_tables(labels)))
    if metrics is not None:
        content: Mapping[str, Any] = json.loads(existing(Path(metrics)).read_text(encoding="utf-8"))
        measured.append(Measured("Held out: studies that had no part in training", content, {}))
    return measured
