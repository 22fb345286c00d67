"""Writes a synthetic cohort in the layout of the RSNA 2024 competition.

`train_images/<study>/<series>/<instance>.dcm`, `train.csv`, `train_label_coordinates.csv` and
`train_series_descriptions.csv`, and besides them `truth.csv`: the exact P(grade | severity) of
every row, which no prediction from images can be expected to beat.
"""

import csv
import multiprocessing
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from lumbar_tf.imaging.geometry import SliceGeometry, patient_to_pixel
from lumbar_tf.imaging.phantom.anatomy import Anatomy, make_anatomy
from lumbar_tf.imaging.phantom.dicom_writer import SliceTags, to_stored_values, write_slice
from lumbar_tf.imaging.phantom.protocol import Resolution, SeriesPlan, plan_series
from lumbar_tf.imaging.phantom.render import render_slice
from lumbar_tf.imaging.phantom.severity import draw_severity, grade_probabilities
from lumbar_tf.labels import FINDINGS, MISSING_LABEL, Family, Finding, Plane, Severity, row_id

# Every thirteenth study is the same patient's second visit; folds have to keep the two together.
_RETURN_PERIOD = 13
_ANNOTATOR_JITTER_MM = 1.0
_MISSING_COORDINATE_RATE = 0.003
_PLANE_OF_FAMILY = {
    Family.CANAL: Plane.SAGITTAL_T2,
    Family.FORAMINAL: Plane.SAGITTAL_T1,
    Family.SUBARTICULAR: Plane.AXIAL_T2,
}
_TABLES: Mapping[str, tuple[str, ...]] = {
    "train.csv": ("study_id", *(finding.name for finding in FINDINGS)),
    "train_label_coordinates.csv": (
        "study_id",
        "series_id",
        "instance_number",
        "condition",
        "level",
        "x",
        "y",
    ),
    "train_series_descriptions.csv": ("study_id", "series_id", "series_description"),
    "truth.csv": ("row_id", *(severity.column for severity in Severity)),
}


@dataclass(frozen=True)
class CohortOptions:
    """What to make.

    Attributes:
        num_studies: how many studies.
        seed: a study depends on the seed and its index only, not on how many others there are.
        first_study_id: the ids count upwards from here.
        workers: processes that render; any number writes the same bytes.
        resolution: matrices as in the real data, or small ones.
        severity_shift: added to every latent severity. 0 gives the profile's label frequencies (6.5%
            severe), 0.45 a sicker cohort (12%), so that a small one has severe cases at more levels.
    """

    num_studies: int
    seed: int = 0
    first_study_id: int = 700000001
    workers: int = 1
    resolution: Resolution = Resolution.SMALL
    severity_shift: float = 0.0

    def __post_init__(self) -> None:
        for name, low in (("num_studies", 1), ("seed", 0), ("first_study_id", 1), ("workers", 1)):
            value = getattr(self, name)
            if value < low:
                raise ValueError(f"`{name}` must be at least {low}. Received: {value}.")
        if not -3 <= self.severity_shift <= 3:
            raise ValueError(f"`severity_shift` must be in [-3, 3]. Received: {self.severity_shift}.")


@dataclass
class _StudyRows:
    """One study's rows of each table."""

    rows: dict[str, list[Sequence[object]]] = field(default_factory=lambda: {name: [] for name in _TABLES})


def write_cohort(out: Path, options: CohortOptions) -> None:
    """Writes the files and tables of a synthetic cohort.

    Args:
        out: the folder; made if needed. Studies already there are overwritten.
        options: what to make.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    work = partial(_write_study, out, options)
    if options.workers == 1:
        studies: Iterable[_StudyRows] = list(map(work, range(options.num_studies)))
    else:
        # Not fork: the caller may have threads (TensorFlow) that a forked child would deadlock on.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(options.workers, mp_context=context) as pool:
            studies = list(pool.map(work, range(options.num_studies), chunksize=4))
    for name, header in _TABLES.items():
        with (out / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            for study in studies:
                writer.writerows(study.rows[name])


def _write_study(out: Path, options: CohortOptions, index: int) -> _StudyRows:
    rng = np.random.default_rng([options.seed, index])
    study_id = str(options.first_study_id + index)
    severity = draw_severity(1, shift=options.severity_shift, rng=rng)
    anatomy = make_anatomy(severity.latent[0], rng)
    plans = plan_series(anatomy, options.resolution, rng=rng)
    series_ids = [str(number) for number in rng.choice(4_000_000_000, len(plans), replace=False) + 1_000_000]
    planes = {plan.plane for plan in plans}
    labels = [
        label if _PLANE_OF_FAMILY[finding.condition.family] in planes else MISSING_LABEL
        for finding, label in zip(FINDINGS, severity.labels[0].tolist())
    ]
    result = _StudyRows()
    titles = ["" if label == MISSING_LABEL else Severity(label).title for label in labels]
    result.rows["train.csv"].append((study_id, *titles))
    for finding, probabilities in zip(FINDINGS, grade_probabilities(severity.latent[0])):
        texts = [f"{value:.6f}" for value in probabilities]
        result.rows["truth.csv"].append((row_id(study_id, finding), *texts))
    for finding, label in zip(FINDINGS, labels):
        if label != MISSING_LABEL and rng.random() >= _MISSING_COORDINATE_RATE:
            row = _coordinate_row(study_id, anatomy, finding, plans, series_ids, rng)
            result.rows["train_label_coordinates.csv"].append(row)
    returning = index % _RETURN_PERIOD == _RETURN_PERIOD - 1
    patient_id = str(int(study_id) - 1) if returning else study_id
    for ordinal, (plan, series_id) in enumerate(zip(plans, series_ids), start=1):
        result.rows["train_series_descriptions.csv"].append(
            (study_id, series_id, plan.plane.series_description)
        )
        tags = SliceTags(
            patient_id=patient_id,
            study_id=study_id,
            series_id=series_id,
            series_ordinal=ordinal,
            instance_number=0,
            weighting=plan.acquisition.weighting,
            thickness_mm=plan.acquisition.thickness_mm,
            spacing_mm=plan.spacing_mm,
        )
        _write_series(out / "train_images" / study_id / series_id, anatomy, plan, tags, rng)
    return result


def _write_series(
    folder: Path, anatomy: Anatomy, plan: SeriesPlan, tags: SliceTags, rng: np.random.Generator
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, geometry in plan.slices:
        image = render_slice(anatomy, geometry, plan.acquisition, rng=rng)
        pixels = to_stored_values(image, peak=plan.peak)
        own = SliceTags(**{**vars(tags), "instance_number": number})
        write_slice(folder / f"{number}.dcm", pixels, geometry, own)


def landmark(anatomy: Anatomy, finding: Finding) -> np.ndarray:
    """Returns where an annotator points for a finding, LPS mm, float64 [3].

    The canal's point is the middle of the sac at the disc; a foramen's lies 17 mm to its side, at the
    root; a subarticular one at the sac's front corner.
    """
    segment = anatomy.segment(finding.level)
    middle = (segment.above.sac_front + segment.below.sac_front + segment.above.sac_back) / 3 + 1.5
    if finding.condition.side is None:
        return anatomy.to_patient((0.0, middle, segment.s_mm))
    sign = anatomy.side_sign(finding.condition.side)
    if finding.condition.family is Family.FORAMINAL:
        return anatomy.to_patient((17.0 * sign, 1.5, segment.s_mm - segment.disc_height / 2 - 3.0))
    return anatomy.to_patient((8.0 * sign, middle - 2.0, segment.s_mm))


def _coordinate_row(
    study_id: str,
    anatomy: Anatomy,
    finding: Finding,
    plans: Sequence[SeriesPlan],
    series_ids: Sequence[str],
    rng: np.random.Generator,
) -> Sequence[object]:
    """Returns the table row of a finding's point on the nearest slice of the plane it is read from."""
    point = landmark(anatomy, finding)
    plane = _PLANE_OF_FAMILY[finding.condition.family]
    candidates = [
        (abs(patient_to_pixel(geometry, point)[2]), series_id, number, geometry)
        for plan, series_id in zip(plans, series_ids)
        if plan.plane is plane
        for number, geometry in plan.slices
    ]
    _, series_id, number, geometry = min(candidates, key=lambda candidate: candidate[0])
    x, y = _jittered_pixel(geometry, point, rng)
    condition = finding.condition.value.replace("_", " ").title()
    return study_id, series_id, number, condition, finding.level.title, f"{x:.6f}", f"{y:.6f}"


def _jittered_pixel(
    geometry: SliceGeometry, point: np.ndarray, rng: np.random.Generator
) -> tuple[float, float]:
    column, row, _ = patient_to_pixel(geometry, point)
    error_mm = rng.normal(0, _ANNOTATOR_JITTER_MM, 2)
    return column + error_mm[0] / geometry.column_spacing_mm, row + error_mm[1] / geometry.row_spacing_mm
