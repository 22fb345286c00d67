"""Writes the labels to look at as one self-contained HTML page, with their pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from lumbar_tf import __version__
from lumbar_tf.ensemble.label_noise import SuspectLabel
from lumbar_tf.files import write_text_atomically
from lumbar_tf.labels import Condition, finding_index
from lumbar_tf.reports.finding_crops import FindingKey
from lumbar_tf.reports.montage import MontageRow
from lumbar_tf.reports.page_templates import data_uri, page_templates

PAGE_NAME = "worklist.html"


def finding_key(doubt: SuspectLabel) -> FindingKey:
    """Returns what `finding_crops` calls a doubt's finding."""
    return doubt.study_id, finding_index(doubt.finding.condition, doubt.finding.level)


def write_review_page(
    path: Path,
    doubts: Sequence[SuspectLabel],
    views: Mapping[FindingKey, Sequence[MontageRow]],
    *,
    num_labels: int,
    is_synthetic: bool = False,
) -> None:
    """Writes the page, whole or not at all.

    Args:
        path: the HTML file.
        doubts: in order of rank.
        views: pictures by finding; a finding without any is shown without.
        num_labels: labels that a member answers, of which the doubts are the first.
        is_synthetic: whether all studies are synthetic.
    """
    stream = (
        page_templates()
        .get_template("worklist.html")
        .generate(
            version=__version__,
            is_synthetic=is_synthetic,
            num_labels=num_labels,
            doubts=[(each, views.get(finding_key(each), ())) for each in doubts],
            conditions=_counts(doubts),
            data_uri=data_uri,
        )
    )
    write_text_atomically(path, stream)


def _counts(doubts: Sequence[SuspectLabel]) -> list[tuple[str, int]]:
    """How many of the doubts each condition has."""
    return [
        (condition.title, sum(each.finding.condition is condition for each in doubts))
        for condition in Condition
    ]
