"""Synthetic cohorts in the layout of the RSNA 2024 competition.

A cohort consists of `train_images/<study>/<series>/<instance>.dcm`, `train.csv`,
`train_label_coordinates.csv`, `train_series_descriptions.csv` and, in addition, `truth.csv`: the exact
P(grade | severity) of every row, which no prediction from images can be expected to surpass.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.cli.progress import ProgressMaker, silent_progress
from lumbar_tf.config.variety import VarietyConfig
from lumbar_tf.dicom.geometry import SliceGeometry, patient_to_pixel
from lumbar_tf.dicom.sources.study_source import SYNTHETIC_TRUTH_NAME
from lumbar_tf.files import write_table_atomically
from lumbar_tf.labels import FINDINGS, MISSING_LABEL, Family, Finding, Plane, Severity, row_id
from lumbar_tf.runners import run_jobs
from lumbar_tf.synthetic.anatomy import Anatomy, make_anatomy
from lumbar_tf.synthetic.dicom_writer import SliceTags, to_stored_values, write_slice
from lumbar_tf.synthetic.protocol import Resolution, SeriesPlan, plan_series
from lumbar_tf.synthetic.render import render_slice
from lumbar_tf.synthetic.severity import draw_severity, grade_probabilities
from lumbar_tf.synthetic.variation import vary_anatomy
from lumbar_tf.synthetic.varied_protocol import plan_varied_series

# Every thirteenth study is a second visit of the previous patient; folds must not separate the two.
_RETURN_PERIOD = 13
_ANNOTATOR_JITTER_MM = 1.0
_IMAGES = "train_images"
_MISSING_COORDINATE_RATE = 0.003
#: A varied study's finding is annotated where a slice this near to its position shows it, this far from the
#: image's edge.
_SEEN_MM = 4.0
_EDGE_PX = 4
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
    SYNTHETIC_TRUTH_NAME: ("row_id", *(severity.column for severity in Severity)),
}


@dataclass(frozen=True)
class CohortOptions:
    """Options of a synthetic cohort.

    Attributes:
        num_studies: number of studies.
        seed: seed; a study depends on the seed and its index only, not on the number of studies.
        first_study_id: id of the first study; the others follow.
        workers: number of rendering processes, which does not change the files.
        resolution: matrices as in the real data, or small ones.
        severity_shift: value added to every latent severity. 0 gives the label frequencies of the RSNA data
            (6.5% severe), 0.45 a cohort with 12% severe findings, so that a small one has severe cases at
            more levels.
        variety: distributions of varied patients and scans, whose matrices replace those of `resolution`;
            None for plain ones.
    """

    num_studies: int
    seed: int = 0
    first_study_id: int = 700000001
    workers: int = 1
    resolution: Resolution = Resolution.SMALL
    severity_shift: float = 0.0
    variety: VarietyConfig | None = None

    def __post_init__(self) -> None:
        for name, low in (("num_studies", 1), ("seed", 0), ("first_study_id", 1), ("workers", 1)):
            value = getattr(self, name)
            if value < low:
                raise ValueError(f"`{name}` must be at least {low}. Received: {value}.")
        if not -3 <= self.severity_shift <= 3:
            raise ValueError(f"`severity_shift` must be in [-3, 3]. Received: {self.severity_shift}.")


@dataclass(frozen=True, eq=False)
class SyntheticStudy:
    """A study before rendering.

    Attributes:
        study_id: study id.
        patient_id: equal to the study id, except for a second visit.
        anatomy: anatomy of the patient.
        latent: latent severities of the 25 findings, float64 [25].
        labels: grades, int64 [25], `MISSING_LABEL` for ungraded findings and missing planes.
        plans: series of the study.
        series_ids: ids of the series.
    """

    study_id: str
    patient_id: str
    anatomy: Anatomy
    latent: NDArray[np.float64]
    labels: NDArray[np.int64]
    plans: tuple[SeriesPlan, ...]
    series_ids: tuple[str, ...]


#: Rows of one study by table.
_Rows = dict[str, list[Sequence[object]]]


def write_cohort(
    out: Path,
    options: CohortOptions,
    *,
    is_resumed: bool = False,
    progress: ProgressMaker = silent_progress,
) -> None:
    """Writes the files and tables of a synthetic cohort.

    Args:
        out: output folder, created if needed. Existing studies are overwritten.
        options: options of the cohort.
        is_resumed: keep the studies that an interrupted call with the same options has finished.
        progress: progress display.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    work = partial(_write_study, out, options, is_resumed)
    found: dict[int, _Rows] = {}
    with progress(options.num_studies) as advance:
        for index, rows in run_jobs(work, range(options.num_studies), workers=options.workers):
            found[index] = rows
            advance(1)
    studies = [found[index] for index in range(options.num_studies)]
    for name, header in _TABLES.items():
        write_table_atomically(out / name, header, [row for rows in studies for row in rows[name]])


def draw_study(options: CohortOptions, index: int) -> tuple[SyntheticStudy, np.random.Generator]:
    """Draws the study at an index of the cohort; also returns the generator, which then draws the noise."""
    rng = np.random.default_rng([options.seed, index])
    severity = draw_severity(1, shift=options.severity_shift, rng=rng)
    anatomy = make_anatomy(severity.latent[0], rng)
    if options.variety is None:
        plans = plan_series(anatomy, options.resolution, rng=rng)
        planes = {plan.plane for plan in plans}
        is_seen = np.array([finding.condition.family.spec.graded_on[0] in planes for finding in FINDINGS])
    else:
        anatomy = vary_anatomy(anatomy, options.variety.anatomy, rng)
        plans = plan_varied_series(anatomy, options.variety, rng=rng)
        is_seen = np.array([_is_in_view(anatomy, plans, finding) for finding in FINDINGS])
    returning = index % _RETURN_PERIOD == _RETURN_PERIOD - 1
    study = SyntheticStudy(
        study_id=str(options.first_study_id + index),
        patient_id=str(options.first_study_id + index - returning),
        anatomy=anatomy,
        latent=severity.latent[0],
        labels=np.where(is_seen, severity.labels[0], MISSING_LABEL),
        plans=plans,
        series_ids=tuple(str(number) for number in rng.choice(2**32, len(plans), replace=False)),
    )
    return study, rng


def _is_in_view(anatomy: Anatomy, plans: Sequence[SeriesPlan], finding: Finding) -> bool:
    """Returns whether a slice of the finding's plane shows its position."""
    point = landmark(anatomy, finding)
    plane = finding.condition.family.spec.graded_on[0]
    for plan in plans:
        for _, geometry in plan.slices if plan.plane is plane else ():
            column, row, offset_mm = patient_to_pixel(geometry, point.tolist())
            is_inside = _EDGE_PX <= column < geometry.columns - _EDGE_PX
            is_inside &= _EDGE_PX <= row < geometry.rows - _EDGE_PX
            if is_inside and abs(offset_mm) <= _SEEN_MM:
                return True
    return False


def _write_study(out: Path, options: CohortOptions, is_resumed: bool, index: int) -> tuple[int, _Rows]:
    study, rng = draw_study(options, index)
    rows = _table_rows(study, rng)
    images = out / _IMAGES
    folder, partial_folder = images / study.study_id, images / f".{study.study_id}.partial"
    if is_resumed and folder.is_dir():
        return index, rows
    for path in (folder, partial_folder):
        shutil.rmtree(path, ignore_errors=True)
    for ordinal, (plan, series_id) in enumerate(zip(study.plans, study.series_ids), start=1):
        tags = SliceTags(
            patient_id=study.patient_id,
            study_id=study.study_id,
            series_id=series_id,
            series_ordinal=ordinal,
            instance_number=0,
            weighting=plan.acquisition.weighting,
            thickness_mm=plan.acquisition.thickness_mm,
            spacing_mm=plan.spacing_mm,
        )
        _write_series(partial_folder / series_id, study.anatomy, plan, tags, rng)
    # A study's folder appears whole.
    partial_folder.rename(folder)
    return index, rows


def _table_rows(study: SyntheticStudy, rng: np.random.Generator) -> _Rows:
    titles = ["" if label == MISSING_LABEL else Severity(label).title for label in study.labels.tolist()]
    truth = [
        (row_id(study.study_id, finding), *(f"{value:.6f}" for value in probabilities))
        for finding, probabilities in zip(FINDINGS, grade_probabilities(study.latent))
    ]
    coordinates = [
        _coordinate_row(study, finding, rng)
        for finding, label in zip(FINDINGS, study.labels)
        if label != MISSING_LABEL and rng.random() >= _MISSING_COORDINATE_RATE
    ]
    descriptions = [
        (study.study_id, series_id, plan.plane.series_description)
        for plan, series_id in zip(study.plans, study.series_ids)
    ]
    return {
        "train.csv": [(study.study_id, *titles)],
        "train_label_coordinates.csv": list(coordinates),
        "train_series_descriptions.csv": list(descriptions),
        SYNTHETIC_TRUTH_NAME: list(truth),
    }


def _write_series(
    folder: Path, anatomy: Anatomy, plan: SeriesPlan, tags: SliceTags, rng: np.random.Generator
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, geometry in plan.slices:
        image = render_slice(anatomy, geometry, plan.acquisition, rng=rng)
        pixels = to_stored_values(image, peak=plan.peak)
        write_slice(folder / f"{number}.dcm", pixels, geometry, replace(tags, instance_number=number))


def landmark(anatomy: Anatomy, finding: Finding) -> NDArray[np.float64]:
    """Returns the position that an annotator marks for a finding, LPS mm, float64 [3].

    The point of the canal is the centre of the sac at the disc, that of a foramen is 17 mm to the side at the
    nerve root, and a subarticular one is at the front corner of the sac.
    """
    segment = anatomy.segment(finding.level)
    middle = (segment.above.sac_front + segment.below.sac_front + segment.above.sac_back) / 3 + 1.5
    if finding.condition.side is None:
        return anatomy.to_patient((0.0, middle, segment.s_mm))
    sign = anatomy.side_sign(finding.condition.side)
    if finding.condition.family is Family.FORAMINAL:
        return anatomy.to_patient((17.0 * sign, 1.5, segment.s_mm - segment.disc_height / 2 - 3.0))
    return anatomy.to_patient((8.0 * sign, middle - 2.0, segment.s_mm))


def nearest_slice(
    study: SyntheticStudy, plane: Plane, point: NDArray[np.float64]
) -> tuple[SeriesPlan, str, int, SliceGeometry]:
    """Returns plan, series id, InstanceNumber and geometry of a plane's slice nearest to a point.

    Raises:
        ValueError: the study has no series of that plane.
    """
    candidates = [
        (plan, series_id, number, geometry)
        for plan, series_id in zip(study.plans, study.series_ids)
        if plan.plane is plane
        for number, geometry in plan.slices
    ]
    if not candidates:
        raise ValueError(f"Study {study.study_id} must have a series of {plane.value}. Received: none.")
    return min(candidates, key=lambda candidate: abs(patient_to_pixel(candidate[3], point.tolist())[2]))


def _coordinate_row(study: SyntheticStudy, finding: Finding, rng: np.random.Generator) -> Sequence[object]:
    """Returns the coordinate table's row of a finding, on the nearest slice of the plane it is graded on."""
    point = landmark(study.anatomy, finding)
    plane = finding.condition.family.spec.graded_on[0]
    _, series_id, number, geometry = nearest_slice(study, plane, point)
    column, row, _ = patient_to_pixel(geometry, point.tolist())
    error_mm = rng.normal(0, _ANNOTATOR_JITTER_MM, 2)
    x = column + error_mm[0] / geometry.column_spacing_mm
    y = row + error_mm[1] / geometry.row_spacing_mm
    condition = finding.condition.value.replace("_", " ").title()
    return study.study_id, series_id, number, condition, finding.level.title, f"{x:.6f}", f"{y:.6f}"
