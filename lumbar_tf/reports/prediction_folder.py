"""Output folder of `predict` or `stack`: tables, reports, and links to the reports."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lumbar_tf.labels import Finding
from lumbar_tf.prediction.result_tables import JSON_NAME, MEMBERS_NAME
from lumbar_tf.reports.study_report import REPORTS_FOLDER
from lumbar_tf.tables.set_tables import SETS_NAME


@dataclass(frozen=True)
class PredictedFolder:
    """A folder that may have been written by `predict` or `stack`.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def members(self) -> tuple[Path, ...]:
        """The table of the members' uncalibrated predictions, if present."""
        path = self.path / MEMBERS_NAME
        return (path,) if path.is_file() else ()

    @property
    def prediction_sets(self) -> Path | None:
        """The table of prediction sets, if present."""
        path = self.path / SETS_NAME
        return path if path.is_file() else None

    @property
    def reports(self) -> Path | None:
        """The folder of the study reports, if present."""
        path = self.path / REPORTS_FOLDER
        return path if path.is_dir() else None

    @property
    def model_version(self) -> str:
        """Version of the exported model that made the predictions; "" if the folder does not contain it."""
        return str(self._results().get("model", ""))

    @property
    def training_note(self) -> str:
        """The note on the training data of that model; "" if the folder does not contain it."""
        notes = (str(study.get("training_note", "")) for study in self._results().get("studies", ()))
        return " ".join(dict.fromkeys(filter(None, notes)))

    def _results(self) -> dict[str, Any]:
        path = self.path / JSON_NAME
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return content


def report_link(page: Path, reports: Path | None, study_id: str, finding: Finding) -> str | None:
    """Returns the URL of a finding in its study's report, relative to a page; None without a report.

    Args:
        page: the HTML file that contains the link.
        reports: the folder of the study reports that `predict` wrote.
        study_id: the study.
        finding: the finding at which the report opens.

    >>> from lumbar_tf.labels import FINDINGS
    >>> report_link(Path("a.html"), None, "1", FINDINGS[0]) is None
    True
    """
    if reports is None or not (report := reports / f"{study_id}.html").is_file():
        return None
    path = Path(os.path.relpath(report.absolute(), page.absolute().parent)).as_posix()
    # A file name can look like a URL with a scheme, `a:b.html`; a leading folder makes it a path.
    return f"{quote(path if path.startswith('.') else f'./{path}')}#{finding.name}"
