"""Addresses of study reports, as seen from another page."""

import os
from pathlib import Path
from urllib.parse import quote

from lumbar_tf.labels import Finding


def report_link(page: Path, reports: Path | None, study_id: str, finding: Finding) -> str | None:
    """Returns the address of a finding in its study's report, relative to a page; None where there is none.

    Args:
        page: the HTML file that holds the link.
        reports: the folder of `predict`'s reports.
        study_id: whose report.
        finding: which the report opens at.

    >>> from lumbar_tf.labels import FINDINGS
    >>> report_link(Path("a.html"), None, "1", FINDINGS[0]) is None
    True
    """
    if reports is None or not (report := reports / f"{study_id}.html").is_file():
        return None
    path = Path(os.path.relpath(report.absolute(), page.absolute().parent)).as_posix()
    # A file's name may begin like a scheme, `a:b.html`: a folder in front makes it a path.
    return f"{quote(path if path.startswith('.') else f'./{path}')}#{finding.name}"
