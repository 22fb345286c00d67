"""Writes what was found in one study as one self-contained HTML page, with the slices to doubt it by."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumbar_tf import __version__
from lumbar_tf.dicom.study import SeriesSummary, Study
from lumbar_tf.files import write_text_atomically
from lumbar_tf.labels import FINDINGS, Condition, Finding, Flag, Level, Plane, Severity, finding_index
from lumbar_tf.prediction.crop_outlines import PlaneCropOutlines
from lumbar_tf.prediction.results import ModelSource, StudyFindings
from lumbar_tf.prediction.saliency import StudySaliency, make_overlays
from lumbar_tf.reports.finding_texts import (
    COLUMNS,
    LONG_FLAGS,
    SHORT_FLAGS,
    list_warnings,
    number_ranges,
)
from lumbar_tf.reports.page_templates import page_templates
from lumbar_tf.reports.slice_stacks import MAX_BYTES, make_stacks
from lumbar_tf.reports.viewer_data import viewer_data

Floats = NDArray[np.float32]

REPORTS_FOLDER = "reports"
_SCRIPT = "study.js"
_SHORT_GRADES = {Severity.NORMAL_MILD: "N/M", Severity.MODERATE: "Mod", Severity.SEVERE: "Sev"}
_ORDER = (Plane.SAGITTAL_T2, Plane.SAGITTAL_T1, Plane.AXIAL_T2)


@dataclass(frozen=True)
class MemberRow:
    """What one member says of a finding.

    Attributes:
        name: such as `sagittal_t2/densenet121`.
        shares: of each grade, uncalibrated.
        slices: of its plane that it looked at, as a reader counts them, or why there are none.
    """

    name: str
    shares: tuple[float, ...]
    slices: str


@dataclass(frozen=True)
class FindingView:
    """A finding as the page shows it.

    Attributes:
        row: of the 25.
        finding: which.
        shares: calibrated probability of each grade; None where there is no answer.
        bounds: lower and upper bound of each; None where there are none.
        likeliest: the grade that is named; None where no image supports one.
        flags: what it had to do without.
        members: what each member says.
    """

    row: int
    finding: Finding
    shares: tuple[float, ...] | None
    bounds: tuple[tuple[float, float], ...] | None
    likeliest: Severity | None
    flags: tuple[Flag, ...]
    members: tuple[MemberRow, ...]

    @property
    def words(self) -> str:
        """The answer in a word or two."""
        if self.shares is None:
            return "No answer"
        return "Prior only" if self.likeliest is None else self.likeliest.title

    @property
    def short_words(self) -> str:
        """The same where there is room for three letters."""
        if self.shares is None:
            return "?"
        return "Prior" if self.likeliest is None else _SHORT_GRADES[self.likeliest]

    @property
    def short_flags(self) -> tuple[Flag, ...]:
        """Those that a cell names: where no image was looked at, it does not matter which are missing."""
        return (Flag.PRIOR_ONLY,) if Flag.PRIOR_ONLY in self.flags else self.flags


def percent(share: float) -> str:
    """Writes a share in whole percents, none of them as a certainty that it is not.

    >>> percent(0.004), percent(0.62), percent(0.998)
    ('<1%', '62%', '>99%')
    """
    rounded = round(100 * share)
    if rounded == 0 and share > 0:
        return "<1%"
    return ">99%" if rounded == 100 and share < 1 else f"{rounded}%"


def write_study_report(
    path: Path,
    study: Study,
    result: StudyFindings,
    source: ModelSource,
    evidence: Mapping[Plane, PlaneCropOutlines],
    saliency: StudySaliency | None = None,
) -> None:
    """Writes the page, whole or not at all; under 8 MB.

    The study's and its series' ids are the only thing said of the patient.

    Args:
        path: the HTML file.
        study: its slices.
        result: its answer.
        source: who answered.
        evidence: what the graders saw, of `find_evidence`; a plane of unknown configuration is absent.
        saliency: where in it they found their answers; None of a model that does not say.
    """
    overlays = make_overlays(saliency, source.members, evidence) if saliency and source.members else {}
    overlay_bytes = sum(len(each) for overlay in overlays.values() for each in overlay.pictures.values())
    wanted = {plane: {each.index for each in _all_crops(seen)} for plane, seen in evidence.items()}
    stacks = make_stacks(study, result.landmarks, wanted, max_bytes=MAX_BYTES - overlay_bytes)
    views = [_view(row, result, source, evidence) for row in range(len(FINDINGS))]
    templates = page_templates()
    script = _read_script()
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    text = templates.get_template("study.html").render(
        version=__version__,
        is_synthetic=source.is_synthetic,
        study=study,
        source=source,
        warnings=list_warnings(study, result),
        grid=[[views[finding_index(condition, level)] for condition in COLUMNS] for level in Level],
        columns=COLUMNS,
        views=views,
        chosen=_most_severe(views),
        levels=list(Level),
        severities=list(Severity),
        short_flags=SHORT_FLAGS,
        long_flags=LONG_FLAGS,
        planes=[plane for plane in _ORDER if plane in stacks],
        stacks=stacks,
        evidence=evidence,
        overlays=overlays,
        has_saliency=saliency is not None,
        has_intervals=any(each.bounds is not None for each in views),
        series=_list_series(study),
        left_out=[each for each in study.series if each.plane is None],
        num_rejects=len(study.rejects),
        percent=percent,
        data=viewer_data(stacks, result, evidence, overlays),
        script=script,
        script_digest=digest,
    )
    write_text_atomically(path, text)


def _read_script() -> str:
    """Returns the page's script as it stands in its file: its digest is what a browser compares."""
    environment = page_templates()
    if environment.loader is None:
        raise ValueError("the templates must have a loader. Received: none.")
    return environment.loader.get_source(environment, _SCRIPT)[0]


def _all_crops(seen: PlaneCropOutlines) -> list[Any]:
    return [each for crops in seen.crops.values() for each in crops]


def _view(
    row: int, result: StudyFindings, source: ModelSource, evidence: Mapping[Plane, PlaneCropOutlines]
) -> FindingView:
    bounds = result.bounds_of(row)
    members = tuple(
        MemberRow(name, tuple(float(each) for each in said[row]), _slices_of(name, row, evidence))
        for name, said in zip(_member_names(result, source), result.members, strict=True)
        if np.isfinite(said[row]).all()
    )
    return FindingView(
        row,
        FINDINGS[row],
        tuple(float(each) for each in result.probability[row]) if result.is_known(row) else None,
        None if bounds is None else tuple((float(low), float(high)) for low, high in bounds),
        result.grade_of(row),
        result.flags_of(row),
        members,
    )


def _member_names(result: StudyFindings, source: ModelSource) -> Sequence[str]:
    return source.members or tuple(f"member {place + 1}" for place in range(len(result.members)))


def _slices_of(name: str, row: int, evidence: Mapping[Plane, PlaneCropOutlines]) -> str:
    """Says which slices a member, named `<plane>/<backbone>`, looked at for a finding."""
    for plane, seen in evidence.items():
        if name.startswith(f"{plane.value}/") and seen.crops.get(row):
            return number_ranges(each.index for each in seen.crops[row])
    return "not known"


def _most_severe(views: Sequence[FindingView]) -> int:
    """Returns the row of the graded finding with the largest mean grade: the page opens at it."""
    graded = [each for each in views if each.likeliest is not None and each.shares is not None]
    if not graded:
        return finding_index(Condition.SPINAL_CANAL_STENOSIS, Level.L4_L5)
    return max(graded, key=lambda each: sum(k * share for k, share in enumerate(each.shares or ()))).row


def _list_series(study: Study) -> list[SeriesSummary]:
    return [each for plane in _ORDER for each in study.series if each.plane is plane]
