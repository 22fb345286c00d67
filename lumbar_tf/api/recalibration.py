"""Recalibration of a bundle to the labelled studies of a site."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.api.arguments import (
    PathLike,
    Paths,
    activity_of,
    existing,
    optional_path,
    paths_of,
    progress_of,
)
from lumbar_tf.ensemble.prediction_sets import FEW_ROWS
from lumbar_tf.ensemble.recalibrated_stacker import Recalibration, recalibrate_stacker
from lumbar_tf.ensemble.stacker import StackerCoefficients, apply_stacker
from lumbar_tf.files import file_sha256, json_safe
from lumbar_tf.labels import MISSING_LABEL, Severity
from lumbar_tf.prediction.result_tables import MEMBERS_NAME, PROBABILITY_NAME
from lumbar_tf.tables.folds import read_patients
from lumbar_tf.tables.labels import read_label_tables
from lumbar_tf.tables.out_of_fold import arrange_members, read_out_of_fold_tables

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

#: Largest difference of a probability in `probability.csv` from the one that the bundle's stacker computes
#: from `members.csv`: that between two machines, as in `bundle.self_test`.
_TOLERANCE = 5e-3


@dataclass(frozen=True, eq=False)
class RecalibrationResult:
    """Outcome of a recalibration.

    Attributes:
        path: folder of the new version; None where none was written, because no family gains.
        num_studies: number of labelled studies with predictions.
        num_patients: number of their patients.
        recalibration: figures of each family (not part of the public API).
    """

    path: Path | None
    num_studies: int
    num_patients: int
    recalibration: Recalibration

    @property
    def families(self) -> tuple[str, ...]:
        """Names of the families that were recalibrated."""
        checks = self.recalibration.checks
        return tuple(family.value for family, check in checks.items() if check.calibration is not None)

    @property
    def notes(self) -> list[str]:
        """Families that keep the bundle's calibration, and set thresholds that it keeps: a sentence each."""
        notes = [
            f"The {family.value} family keeps the bundle's calibration: {check.reason}."
            for family, check in self.recalibration.checks.items()
            if check.calibration is None
        ]
        notes += [
            f"Prediction sets of {family.value} findings keep the bundle's threshold of "
            f"{', '.join(grade.title for grade in grades)} (fewer than {FEW_ROWS} labels), moved with the "
            "probabilities."
            for family, grades in self.recalibration.few_labels.items()
            if grades
        ]
        return notes

    def to_frame(self) -> "pd.DataFrame":
        """Returns a row for each family.

        Columns: `family`; `num_patients` with a label; `num_normal_mild`, `num_moderate` and `num_severe`
        labels; `loss_before` and `loss_after`, the mean log loss of the bundle's probabilities and of
        recalibrated ones on patients that they were not fitted to; `gain_bound`, the lower bound of the
        decrease; `is_recalibrated`; and the calibration, `scale`, `moderate` and `severe`, NaN without one.
        """
        import pandas as pd

        rows = []
        for name, figures in _describe_families(self.recalibration).items():
            counts = {f"num_{grade}": count for grade, count in figures["num_labels"].items()}
            calibration = figures["calibration"] or dict.fromkeys(("scale", "moderate", "severe"), np.nan)
            losses = {key: figures[key] for key in ("loss_before", "loss_after", "gain_bound")}
            rows.append(
                {
                    "family": name,
                    "num_patients": figures["num_patients"],
                    **counts,
                    **losses,
                    "is_recalibrated": figures["calibration"] is not None,
                    **calibration,
                }
            )
        return pd.DataFrame(rows)

    def console_table(self, title: str) -> "Table":
        """Returns the figures of `to_frame` as a `rich.table.Table`."""
        from rich.table import Table

        caption = "mean log losses; after: of patients that the calibration was not fitted to"
        table = Table(title=title, caption=caption, title_justify="left")
        headings = ("patients", "labels by grade", "before", "after", "gain, at least", "scale", "offsets")
        for heading in ("", *headings):
            table.add_column(heading, justify="right" if heading else "left", no_wrap=not heading)
        for family, check in self.recalibration.checks.items():
            own = check.calibration
            table.add_row(
                family.value,
                str(check.num_patients),
                ", ".join(map(str, check.num_labels)),
                *(f"{value:.4f}" for value in (check.loss_before, check.loss_after, check.gain_bound)),
                "kept" if own is None else f"{own.scale:.2f}",
                "kept" if own is None else f"{own.moderate:+.2f}, {own.severe:+.2f}",
            )
        return table


def recalibrate(
    predictions: PathLike = "predictions",
    labels: Paths = "train.csv",
    *,
    model: PathLike | None = None,
    out: PathLike | None = None,
    patients: PathLike | None = None,
    require_signature: PathLike | None = None,
    sign_key_file: PathLike | None = None,
    verbose: bool = False,
) -> RecalibrationResult:
    """Fits a bundle's calibration to labelled studies of a site, and writes it as a new version.

    The earlier version is kept. A version that was recalibrated before is recalibrated from the stacker that
    it was exported with; the earlier calibration is replaced.

    Args:
        predictions: folder that `predict` wrote with this bundle: `members.csv` and `probability.csv`.
        labels: label tables in the layout of `train.csv`, of studies that did not train the ensemble.
        model: the bundle; by default `models/lumbar` or the pretrained ensemble. See `load_ensemble`.
        out: folder of versions; by default that of the bundle, and `models/lumbar` for the pretrained one.
        patients: a CSV file `study_id,patient_id`, needed where a patient has several studies.
        require_signature: PEM file of the public key that the bundle must be signed with; see
            `load_ensemble`.
        sign_key_file: PEM file of the private key that signs the new version; see `export`.
        verbose: whether progress is shown on stderr.

    Returns:
        The figures, and the new version's folder unless no family gains.

    Raises:
        ValueError: the predictions are of another bundle, labels of fewer than 25 patients have predictions,
            the bundle is faulty, or the new one fails its self-test.
    """
    from lumbar_tf.api.grading import DEFAULT_MODEL, load_ensemble
    from lumbar_tf.bundle.loading import ServedEnsemble
    from lumbar_tf.bundle.recalibrated_bundle import read_stackers, write_recalibrated
    from lumbar_tf.bundle.signing import read_signing_key
    from lumbar_tf.models.pretrained import pretrained_folder
    from lumbar_tf.monitoring.bundle_reference import recalibrated_reference_writer

    folder, tables = Path(predictions), [existing(path) for path in paths_of(labels)]
    members_path, probability_path = (existing(folder / name) for name in (MEMBERS_NAME, PROBABILITY_NAME))
    key = None if sign_key_file is None else read_signing_key(Path(sign_key_file))
    source = load_ensemble(model, require_signature=require_signature, verbose=verbose).model
    if not isinstance(source, ServedEnsemble):
        raise ValueError(f"A recalibration must start from a bundle's files. Received: {model}.")
    original, served = read_stackers(source.path)
    members_tables = read_out_of_fold_tables([members_path])
    study_ids, probabilities = arrange_members(members_tables, original.members)
    _check_origin(probability_path, study_ids, probabilities, (original, served), source.version)
    chosen, known = _match_labels(study_ids, *read_label_tables(tables))
    used, probabilities = [study_ids[place] for place in chosen], probabilities[:, chosen]
    groups = used if patients is None else read_patients(existing(Path(patients)), used)
    found = recalibrate_stacker(
        original, probabilities, known, groups, progress=progress_of("Fitting", verbose=verbose, unit="fit")
    )
    num_patients = len(set(groups))
    if found.stacker is None:
        return RecalibrationResult(None, len(used), num_patients, found)
    is_pretrained = source.path.parent == pretrained_folder()
    content = {
        "num_studies": len(used),
        "num_patients": num_patients,
        "labels_sha256": [file_sha256(path) for path in tables],
        "members_sha256": file_sha256(members_path),
        "families": json_safe(_describe_families(found)),
    }
    recalibrated = apply_stacker(found.stacker, probabilities).probability
    with activity_of("Writing and testing the bundle", verbose=verbose):
        path = write_recalibrated(
            source,
            found.stacker,
            content,
            optional_path(out) or (DEFAULT_MODEL if is_pretrained else source.path.parent),
            add=recalibrated_reference_writer(source.path, recalibrated, probabilities),
            signing_key=key,
        )
    return RecalibrationResult(path, len(used), num_patients, found)


def _check_origin(
    path: Path,
    study_ids: list[str],
    probabilities: NDArray[np.float64],
    stackers: tuple[StackerCoefficients, StackerCoefficients],
    version: str,
) -> None:
    """Raises `ValueError` unless `probability.csv` is what one of the stackers makes of the members."""
    (table,) = read_out_of_fold_tables([path])
    missing = [study_id for study_id in study_ids if study_id not in table.rows]
    if missing:
        rule = f"{path} must have the studies of {MEMBERS_NAME}."
        raise ValueError(f"{rule} Received: no row of {missing[0]!r}.")
    written = np.stack([table.rows[study_id] for study_id in study_ids])
    differences = [
        np.abs(apply_stacker(each, probabilities).probability - written).max() for each in stackers
    ]
    if not min(differences) <= _TOLERANCE:
        raise ValueError(
            f"The predictions must be those of the bundle, version {version}. Received: {path}, whose "
            f"probabilities differ from those of its stacker by up to {min(differences):.2g}. Run "
            "lumbar_tf.predict with this bundle."
        )


def _match_labels(
    study_ids: list[str], labelled_ids: list[str], labels: NDArray[np.int8]
) -> tuple[list[int], NDArray[np.int8]]:
    """Returns the places of the studies with a label, and their labels, [num_found, 25]."""
    label_of = {
        study_id: row
        for study_id, row in zip(labelled_ids, labels, strict=True)
        if (row != MISSING_LABEL).any()
    }
    places = [place for place, study_id in enumerate(study_ids) if study_id in label_of]
    rows = [label_of[study_ids[place]] for place in places]
    return places, np.stack(rows) if rows else labels[:0]


def _describe_families(recalibration: Recalibration) -> dict[str, dict[str, Any]]:
    """Returns the figures of each family for `ensemble.json`."""
    return {
        family.value: {
            "num_patients": check.num_patients,
            "num_labels": {
                grade.column: count for grade, count in zip(Severity, check.num_labels, strict=True)
            },
            "loss_before": check.loss_before,
            "loss_after": check.loss_after,
            "gain_bound": check.gain_bound,
            "calibration": None if check.calibration is None else asdict(check.calibration),
            "grades_with_few_labels": [grade.title for grade in recalibration.few_labels.get(family, ())],
            "reason": check.reason,
        }
        for family, check in recalibration.checks.items()
    }
