"""Report of one study as a self-contained HTML page with its slices."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.dicom.study import SeriesSummary, Study
from lumbar_tf.labels import FINDINGS, Condition, Finding, Flag, Level, Plane, Severity, finding_index
from lumbar_tf.prediction.crop_outlines import PlaneCropOutlines
from lumbar_tf.prediction.impression import make_impression
from lumbar_tf.prediction.impression_phrases import Language
from lumbar_tf.prediction.results import ModelSource, StudyFindings, set_words
from lumbar_tf.prediction.saliency import StudySaliency, make_overlays
from lumbar_tf.reports.finding_texts import COLUMNS, FLAG_TEXTS, format_slice_numbers, list_warnings
from lumbar_tf.reports.pages import page_templates, write_page
from lumbar_tf.reports.probability_table import expected_severity
from lumbar_tf.reports.slice_stacks import MAX_BYTES, make_stacks
from lumbar_tf.reports.viewer_data import viewer_data

Floats = NDArray[np.float32]

REPORTS_FOLDER = "reports"
_SCRIPT = "study.js"
_SHORT_GRADES = {Severity.NORMAL_MILD: "N/M", Severity.MODERATE: "Mod", Severity.SEVERE: "Sev"}
_PLANE_ORDER = (Plane.SAGITTAL_T2, Plane.SAGITTAL_T1, Plane.AXIAL_T2)


@dataclass(frozen=True)
class MemberRow:
    """Prediction of one ensemble member for a finding.

    Attributes:
        name: such as `sagittal_t2/densenet121`.
        shares: uncalibrated probability of each grade.
        slices: numbers of the slices that it graded, or "not known".
    """

    name: str
    shares: tuple[float, ...]
    slices: str


@dataclass(frozen=True)
class FindingEntry:
    """A finding as shown on the page.

    Attributes:
        row: index of the finding, 0 to 24.
        finding: the finding.
        shares: calibrated probability of each grade; None without a result.
        bounds: lower and upper bound of each probability; None if the model gives no intervals.
        likeliest: most probable grade; None if no image supports one.
        set_text: grades of the prediction set in words; "" without one.
        flags: limitations of the result.
        members: predictions of the members.
    """

    row: int
    finding: Finding
    shares: tuple[float, ...] | None
    bounds: tuple[tuple[float, float], ...] | None
    likeliest: Severity | None
    set_text: str
    flags: tuple[Flag, ...]
    members: tuple[MemberRow, ...]

    @property
    def answer(self) -> str:
        """The result in one or two words."""
        if self.shares is None:
            return "No result"
        return "Prior only" if self.likeliest is None else self.likeliest.title

    @property
    def short_answer(self) -> str:
        """The result in at most five characters."""
        if self.shares is None:
            return "?"
        return "Prior" if self.likeliest is None else _SHORT_GRADES[self.likeliest]

    @property
    def cell_flags(self) -> tuple[Flag, ...]:
        """Flags named in the grid; if no image was used, the missing planes are not listed as well."""
        return (Flag.PRIOR_ONLY,) if Flag.PRIOR_ONLY in self.flags else self.flags


def percent(share: float) -> str:
    """Formats a probability in whole percent; only 0 and 1 themselves become 0% and 100%.

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
    crop_outlines: Mapping[Plane, PlaneCropOutlines],
    saliency: StudySaliency | None = None,
    *,
    language: Language = Language.ENGLISH,
) -> None:
    """Writes the report, atomically; it is smaller than 8 MB.

    The ids of the study and its series are the only patient data on the page.

    Args:
        path: the HTML file.
        study: the study's slices.
        result: the study's findings.
        source: the model that made the predictions.
        crop_outlines: the graders' crops, from `find_crop_outlines`; a plane without known crops is absent.
        saliency: saliency maps of the crops; None if the model does not provide them.
        language: language of the impression; the rest of the page is in English.
    """
    overlays = make_overlays(saliency, source.members, crop_outlines) if saliency and source.members else {}
    overlay_bytes = sum(len(png) for overlay in overlays.values() for png in overlay.pictures.values())
    graded = {plane: _graded_slices(outlines) for plane, outlines in crop_outlines.items()}
    stacks = make_stacks(study, result.landmarks, graded, max_bytes=MAX_BYTES - overlay_bytes)
    entries = [_finding_entry(row, result, source, crop_outlines) for row in range(len(FINDINGS))]
    script = _read_script()
    values: dict[str, Any] = {
        "study": study,
        "source": source,
        "training_note": result.training_note,
        # The badge of synthetic studies states enough about a synthetic study.
        "is_mismatched": result.training.is_synthetic and not source.is_synthetic,
        "impression": make_impression(result, language),
        "language": language,
        "warnings": list_warnings(study, result),
        "grid": [[entries[finding_index(condition, level)] for condition in COLUMNS] for level in Level],
        "columns": COLUMNS,
        "sides": [(side, len(list(columns))) for side, columns in groupby(COLUMNS, key=lambda c: c.side)],
        "entries": entries,
        "chosen": _most_severe(entries),
        "levels": list(Level),
        "severities": list(Severity),
        "flag_texts": FLAG_TEXTS,
        "planes": [plane for plane in _PLANE_ORDER if plane in stacks],
        "stacks": stacks,
        "has_outlines": bool(crop_outlines),
        "overlays": overlays,
        "has_saliency": saliency is not None,
        "set_coverage": result.set_coverage,
        "has_sets": any(entry.set_text for entry in entries),
        "has_intervals": any(entry.bounds is not None for entry in entries),
        "series": _list_series(study),
        "left_out": [series for series in study.series if series.plane is None],
        "num_rejects": len(study.rejects),
        "percent": percent,
        "data": viewer_data(stacks, result, crop_outlines, overlays),
        "script": script,
        "script_digest": base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii"),
    }
    write_page(path, "study.html", values, is_synthetic=source.is_synthetic)


def _read_script() -> str:
    """Returns the page's script byte for byte, since the browser compares its digest."""
    environment = page_templates()
    if environment.loader is None:
        raise ValueError("The template environment must have a loader. Received: None.")
    return environment.loader.get_source(environment, _SCRIPT)[0]


def _graded_slices(plane_outlines: PlaneCropOutlines) -> set[int]:
    return {outline.index for outlines in plane_outlines.crops.values() for outline in outlines}


def _finding_entry(
    row: int, result: StudyFindings, source: ModelSource, crop_outlines: Mapping[Plane, PlaneCropOutlines]
) -> FindingEntry:
    bounds = result.bounds_of(row)
    members = tuple(
        MemberRow(name, tuple(probabilities[row].tolist()), _slices_of(name, row, crop_outlines))
        for name, probabilities in zip(_member_names(result, source), result.members, strict=True)
        if np.isfinite(probabilities[row]).all()
    )
    return FindingEntry(
        row,
        FINDINGS[row],
        tuple(result.probability[row].tolist()) if result.is_known(row) else None,
        None if bounds is None else tuple((float(low), float(high)) for low, high in bounds),
        result.grade_of(row),
        set_words(result.set_of(row)),
        result.flags_of(row),
        members,
    )


def _member_names(result: StudyFindings, source: ModelSource) -> Sequence[str]:
    return source.members or tuple(f"member {place + 1}" for place in range(len(result.members)))


def _slices_of(name: str, row: int, crop_outlines: Mapping[Plane, PlaneCropOutlines]) -> str:
    """Returns the numbers of the slices that a member, `<plane>/<backbone>`, graded for a finding."""
    for plane, plane_outlines in crop_outlines.items():
        if name.startswith(f"{plane.value}/") and plane_outlines.crops.get(row):
            return format_slice_numbers(outline.index for outline in plane_outlines.crops[row])
    return "not known"


def _most_severe(entries: Sequence[FindingEntry]) -> int:
    """Returns the row of the graded finding with the largest expected severity, the one shown first."""
    graded = {
        entry.row: expected_severity(np.array(entry.shares))
        for entry in entries
        if entry.likeliest is not None and entry.shares is not None
    }
    if not graded:
        return finding_index(Condition.SPINAL_CANAL_STENOSIS, Level.L4_L5)
    return max(graded, key=lambda row: graded[row])


def _list_series(study: Study) -> list[SeriesSummary]:
    return [series for plane in _PLANE_ORDER for series in study.series if series.plane is plane]
