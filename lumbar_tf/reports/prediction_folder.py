"""What `predict` left beside its tables."""

import json
from dataclasses import dataclass
from pathlib import Path

from lumbar_tf.prediction.result_tables import JSON_NAME, MEMBERS_NAME
from lumbar_tf.reports.study_report import REPORTS_FOLDER


@dataclass(frozen=True)
class PredictedFolder:
    """A folder that may be one of `predict`'s.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def members(self) -> tuple[Path, ...]:
        """The table of the members as they come, if there is one."""
        path = self.path / MEMBERS_NAME
        return (path,) if path.is_file() else ()

    @property
    def reports(self) -> Path | None:
        """The folder of the studies' reports, if there is one."""
        path = self.path / REPORTS_FOLDER
        return path if path.is_dir() else None

    @property
    def model_version(self) -> str:
        """The version of the export that answered; "" where the folder does not say."""
        path = self.path / JSON_NAME
        if not path.is_file():
            return ""
        return str(json.loads(path.read_text(encoding="utf-8")).get("model", ""))
