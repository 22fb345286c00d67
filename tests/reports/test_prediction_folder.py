import json
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from lumbar_tf.labels import FINDINGS
from lumbar_tf.reports.prediction_folder import PredictedFolder, report_link

FINDING = FINDINGS[3]


@pytest.mark.parametrize("page", ["evaluation/evaluation.html", "reports.html", "a/b/c/page.html"])
@pytest.mark.parametrize("study", ["800000001", "a:b", "../up", "50% #1?", "1 2"])
def test_a_link_leads_from_a_page_to_the_finding_in_the_report(tmp_path: Path, page: str, study: str) -> None:
    reports = tmp_path / "predictions" / "reports"
    reports.mkdir(parents=True)
    report = reports / f"{study}.html"
    report.touch()
    link = report_link(tmp_path / page, reports, study, FINDING)
    assert link is not None and link.startswith(".")
    parts = urlsplit(link)
    assert not parts.scheme and not parts.netloc and not parts.query
    assert parts.fragment == FINDING.name
    (tmp_path / page).parent.mkdir(parents=True, exist_ok=True)
    assert ((tmp_path / page).parent / unquote(parts.path)).resolve() == report.resolve()


def test_a_study_without_a_report_has_no_link(tmp_path: Path) -> None:
    assert report_link(tmp_path / "page.html", tmp_path, "1", FINDING) is None
    assert report_link(tmp_path / "page.html", None, "1", FINDING) is None


def test_model_and_training_note_are_those_of_the_results(tmp_path: Path) -> None:
    assert (PredictedFolder(tmp_path).model_version, PredictedFolder(tmp_path).training_note) == ("", "")
    content = {"model": "3", "studies": [{"study_id": "1"}, *({"training_note": "One."} for _ in range(2))]}
    (tmp_path / "results.json").write_text(json.dumps(content))
    assert (PredictedFolder(tmp_path).model_version, PredictedFolder(tmp_path).training_note) == ("3", "One.")
