"""axe-core on every kind of page, light and dark, wide and narrow: nothing serious, nothing critical.

axe-core (MPL-2.0) comes with the package axe-core-python and is given to the page by the browser, as a
reader's own extension would be.
"""

import json
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lumbar_tf.dicom.reasons import Reject, RejectReason
from lumbar_tf.dicom.study import SeriesSummary
from lumbar_tf.ensemble.label_noise import SuspectLabel
from lumbar_tf.evaluation import evaluation_run
from lumbar_tf.evaluation.plots import PanelPicture as Diagram
from lumbar_tf.labels import FINDINGS, Condition, Plane, Severity
from lumbar_tf.records.manifest import RejectEntry, StudyEntry, write_manifest
from lumbar_tf.reports.census import StudyFacts, Tally
from lumbar_tf.reports.checklist import ProjectFiles, write_checklists
from lumbar_tf.reports.dataset_card import RecordsSummary, summarise_records, write_dataset_card
from lumbar_tf.reports.evaluation_page import write_evaluation_page
from lumbar_tf.reports.inspection_page import render_montage, write_inspection_page
from lumbar_tf.reports.label_contradictions import Contradiction
from lumbar_tf.reports.montage import Mark, Montage, MontageRow, SlicePicture
from lumbar_tf.reports.review_labels import finding_key, write_review_page
from lumbar_tf.reports.slice_pictures import encode_png
from lumbar_tf.reports.study_report import write_study_report
from lumbar_tf.reports.training_page import write_training_index, write_training_pages
from lumbar_tf.tables.groups import Grouping
from lumbar_tf.tables.labels import write_record_labels
from lumbar_tf.tables.out_of_fold import write_out_of_fold_table
from lumbar_tf.training.runs import LOCALIZER
from tests.graded_cohort import draw_answers, draw_labels, make_study_ids, write_labels
from tests.records.made_manifests import make_manifest
from tests.reports.browser import CHROMIUM, Tab, open_tab
from tests.reports.reported_study import SOURCE, make_crop_outlines, make_result, make_study
from tests.reports.trained_run import BACKBONE, make_run, train_fold, write_error

AXE = find_spec("axe_core_python")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
    pytest.mark.skipif(AXE is None, reason="axe-core-python is not installed"),
]
#: An incomplete rule without nodes is one that could not run.
RUN = """axe.run(document, {resultTypes: ["violations", "incomplete"]}).then((found) => JSON.stringify({
  violations: found.violations.map((rule) => [rule.id, rule.impact, rule.nodes.map((node) => node.html)]),
  failed: found.incomplete.filter((rule) => !rule.nodes.length).map((rule) => rule.id),
}))"""
PNG = encode_png(np.eye(20, dtype=np.float32), (10.0, 10.0))


def _study(folder: Path) -> Path:
    write_study_report(
        folder / "p.html", make_study(), make_result(), SOURCE, make_crop_outlines(make_result())
    )
    return folder / "p.html"


def _evaluation(folder: Path) -> Path:
    ids, labels = make_study_ids(24), draw_labels(24, num_graded=10)
    write_labels(folder / "train.csv", ids, labels)
    for seed, name in enumerate(("one", "two")):
        write_out_of_fold_table(folder / f"{name}.csv", ids, draw_answers(labels, sharpness=1.0, seed=seed))
    (folder / f"{ids[0]}.html").touch()
    with pytest.MonkeyPatch.context() as patch:
        # Drawing takes seconds, and a diagram is a picture to axe-core, whatever it shows.
        diagram = Diagram("A diagram", PNG)
        patch.setattr(
            evaluation_run, "draw_sheets", lambda *_, **__: {condition: [diagram] for condition in Condition}
        )
        evaluated = evaluation_run.evaluate_files(
            [folder / "one.csv", folder / "two.csv"],
            [folder / "train.csv"],
            folder / "out",
            members=[folder / "two.csv"],
            groupings=[Grouping("Vendor", dict.fromkeys(ids, "ge"), ("ge",))],
            num_resamples=5,
        )
    write_evaluation_page(folder / "p.html", evaluated, reports=folder, is_synthetic=True)
    return folder / "p.html"


def _training(folder: Path, member: str) -> Path:
    run = make_run(folder)
    for fold in (0, 1):
        train_fold(run, member, fold)
    if member == LOCALIZER:
        write_error(run)
    write_training_pages(run, member, is_synthetic=True)
    return run.member_directory(member) / "training.html"


def _index(folder: Path) -> Path:
    _training(folder, BACKBONE)
    return write_training_index(folder / "runs")


def _row() -> MontageRow:
    mark = Mark(2.0, 3.0, "L4/5", "canal", "canal", True)
    return MontageRow(
        Plane.SAGITTAL_T2, "note", (SlicePicture(PNG, 10.0, 10.0, "nearest", ("A", "P"), (mark,)),)
    )


def _review_labels(folder: Path) -> Path:
    by_member = {"sagittal_t2/net": (0.025, 0.9)}
    suspect = SuspectLabel(1, "11", FINDINGS[3], Severity.NORMAL_MILD, Severity.SEVERE, 0.06, 0.75, by_member)
    write_review_page(folder / "p.html", (suspect,), {finding_key(suspect): [_row()]}, num_labels=1)
    return folder / "p.html"


def _inspection(folder: Path) -> Path:
    tally = Tally()
    tally.add(
        StudyFacts(
            "11",
            (SeriesSummary("1", Plane.SAGITTAL_T2, "", 17, 448, 448, 0.6, 0.6, 4.4, "ge", 1.5),),
            rejects=(Reject("11", "2", "file", RejectReason.TRUNCATED, "the rule"),),
            contradictions=((Contradiction.SIDES_SWAPPED, "left_subarticular_stenosis_l4_l5 by 3 mm"),),
            labels=np.zeros(25, np.int8),
            num_points=5,
        )
    )
    write_inspection_page(folder / "p.html", tally.census(), [render_montage(Montage("11", (_row(),)))])
    return folder / "p.html"


def _summary(folder: Path) -> RecordsSummary:
    series = SeriesSummary("1", Plane.SAGITTAL_T2, "", 17, 448, 448, 0.6, 0.6, 4.4, "ge", 1.5)
    study = StudyEntry(
        study_id="11", patient_group="11", source_digest="", num_slices={"sagittal_t2": 17}, series=(series,)
    )
    reject = Reject("12", "2", "file", RejectReason.TRUNCATED, "the rule")
    content = {"studies": (study,), "rejects": (RejectEntry.of(reject),)}
    write_manifest(folder, make_manifest({}).model_copy(update=content))
    write_record_labels(folder, {"11": np.zeros(25, np.int8)})
    return summarise_records(folder)


def _dataset_card(folder: Path) -> Path:
    write_dataset_card(folder / "p.html", _summary(folder))
    return folder / "p.html"


def _checklist(folder: Path) -> Path:
    write_checklists(folder, ProjectFiles(records=_summary(folder)))
    return folder / "checklist.html"


PAGES: dict[str, Callable[[Path], Path]] = {
    "study": _study,
    "evaluation": _evaluation,
    "grader": lambda folder: _training(folder, BACKBONE),
    "localizer": lambda folder: _training(folder, LOCALIZER),
    "training index": _index,
    "review labels": _review_labels,
    "inspection": _inspection,
    "dataset card": _dataset_card,
    "checklist": _checklist,
}


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with open_tab(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def script() -> str:
    assert AXE is not None and AXE.origin is not None
    return Path(AXE.origin).with_name("axe.min.js").read_text(encoding="utf-8")


def _run_axe(tab: Tab) -> dict[str, Any]:
    return dict(json.loads(tab.run(RUN)))


@pytest.mark.parametrize("kind", PAGES)
def test_axe_reports_no_serious_violation(tab: Tab, script: str, tmp_path: Path, kind: str) -> None:
    address = PAGES[kind](tmp_path).as_uri()
    tab.requests.clear()
    tab.errors.clear()
    tab.open(address)
    tab.run(script + "; 0")
    # Collapsed sections are checked as well.
    tab.run("document.querySelectorAll('details').forEach((section) => { section.open = true; })")
    for width in (1280, 400):
        for is_dark in (False, True):
            tab.set_window(width=width, is_dark=is_dark)
            found = _run_axe(tab)
            serious = [
                violation for violation in found["violations"] if violation[1] in ("serious", "critical")
            ]
            assert not serious, (width, is_dark)
            assert not found["failed"], (width, is_dark)
        assert tab.run("document.documentElement.scrollWidth") <= width
    assert tab.requests == [address] and not tab.errors


def test_axe_reports_poor_contrast_and_missing_alternative_texts(
    tab: Tab, script: str, tmp_path: Path
) -> None:
    page = _review_labels(tmp_path)
    text = page.read_text(encoding="utf-8").replace("--soft: #5b6675", "--soft: #b0b6c0")
    page.write_text(text.replace(' alt="', ' data-alt="'), encoding="utf-8")
    tab.open(page.as_uri())
    tab.run(script + "; 0")
    assert {"color-contrast", "image-alt"} <= {violation[0] for violation in _run_axe(tab)["violations"]}
