"""Overview sheet of a few synthetic studies."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.labels import FINDINGS, Condition, Family, Finding, Level, Plane
from lumbar_tf.synthetic.cohort import (
    CohortOptions,
    SyntheticStudy,
    draw_study,
    landmark,
    nearest_slice,
)
from lumbar_tf.synthetic.render import render_slice
from lumbar_tf.synthetic.severity import relative_severity

_NUM_STUDIES = 3
_CANAL = Condition.SPINAL_CANAL_STENOSIS
_FORAMEN = Condition.LEFT_NEURAL_FORAMINAL_NARROWING


@dataclass(frozen=True, eq=False)
class _Picture:
    """A cell of the sheet.

    Attributes:
        caption: text above the image.
        image: float32 [rows, columns].
    """

    caption: str
    image: NDArray[np.float32]


def draw_cohort_sheet(path: Path, options: CohortOptions) -> None:
    """Draws five slices of each of the cohort's first studies that have all planes.

    Args:
        path: output PNG.
        options: options of the cohort; its files are not read.

    Raises:
        ValueError: no study of the cohort has all planes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [list(_pictures(study, rng)) for study, rng in _complete_studies(options)]
    if not rows:
        raise ValueError(
            f"A sheet needs a study with all planes. Received: {options.num_studies} studies without."
        )
    figure = Figure(figsize=(20, 4.3 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), 5, squeeze=False)
    for cell, picture in zip(axes.ravel(), (picture for row in rows for picture in row)):
        cell.imshow(picture.image, cmap="gray", vmin=0, vmax=float(np.percentile(picture.image, 99.3)))
        cell.set_title(picture.caption, fontsize=10)
        cell.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80, bbox_inches="tight")


def _complete_studies(options: CohortOptions) -> Iterator[tuple[SyntheticStudy, np.random.Generator]]:
    found = 0
    for index in range(options.num_studies):
        study, rng = draw_study(options, index)
        if {plan.plane for plan in study.plans} == set(Plane):
            found += 1
            yield study, rng
        if found == _NUM_STUDIES:
            return


def _pictures(study: SyntheticStudy, rng: np.random.Generator) -> Iterator[_Picture]:
    relative = relative_severity(study.latent)
    is_axial = np.array([finding.condition.family is not Family.FORAMINAL for finding in FINDINGS])
    worst = FINDINGS[int(np.argmax(np.where(is_axial, relative, -np.inf)))].level
    places = (
        (Plane.SAGITTAL_T2, Finding(_CANAL, Level.L3_L4), "canal L1/L2 to L5/S1"),
        (Plane.SAGITTAL_T1, Finding(_FORAMEN, Level.L4_L5), "left foramina L1/L2 to L5/S1"),
        (Plane.AXIAL_T2, Finding(_CANAL, Level.L4_L5), "L4/L5"),
        (Plane.AXIAL_T2, Finding(_CANAL, Level.L5_S1), "L5/S1"),
        (Plane.AXIAL_T2, Finding(_CANAL, worst), f"worst: {worst.title}"),
    )
    for plane, finding, name in places:
        plan, _, _, geometry = nearest_slice(study, plane, landmark(study.anatomy, finding))
        image = render_slice(study.anatomy, geometry, plan.acquisition, rng=rng)
        caption = _sagittal_caption if plane.is_sagittal else _axial_caption
        yield _Picture(caption=f"{study.study_id} {name}\n{caption(relative, finding)}", image=image)


def _sagittal_caption(relative: NDArray[np.float64], finding: Finding) -> str:
    """Returns the severities of the condition at all levels: 0 is Moderate, 1 is Severe."""
    values = [value for other, value in zip(FINDINGS, relative) if other.condition is finding.condition]
    return " ".join(f"{value:.1f}" for value in values)


def _axial_caption(relative: NDArray[np.float64], finding: Finding) -> str:
    """Returns the canal and recess severities at the level: 0 is Moderate, 1 is Severe."""
    values = {
        other.condition: value for other, value in zip(FINDINGS, relative) if other.level is finding.level
    }
    return (
        f"canal {values[_CANAL]:.1f}, recess right {values[Condition.RIGHT_SUBARTICULAR_STENOSIS]:.1f} "
        f"left {values[Condition.LEFT_SUBARTICULAR_STENOSIS]:.1f}"
    )
