"""Writes the labels to look at as a CSV."""

from collections.abc import Sequence
from pathlib import Path

from lumbar_tf.ensemble.label_noise import SuspectLabel
from lumbar_tf.files import write_table_atomically

CSV_NAME = "worklist.csv"

_COLUMNS = (
    "rank",
    "study_id",
    "row_id",
    "condition",
    "level",
    "label",
    "other",
    "disagreement",
    "mean_given",
    "mean_other",
)


def write_review_table(path: Path, doubts: Sequence[SuspectLabel], members: Sequence[str]) -> None:
    """Writes a row a label, the one that is disagreed with most first.

    `label` and `other` are spelt as in `train.csv`. `mean_given` and `mean_other` are the mean's
    probabilities of the two, `<member>:given` and `<member>:other` each member's, blank where it has none.

    Args:
        path: the CSV.
        doubts: in order of rank.
        members: names, in the order of their columns.
    """
    header = [*_COLUMNS, *(f"{name}:{which}" for name in members for which in ("given", "other"))]
    write_table_atomically(path, header, (_cells(doubt, members) for doubt in doubts))


def _cells(doubt: SuspectLabel, members: Sequence[str]) -> list[str]:
    numbers = (doubt.disagreement, doubt.given_mean, doubt.other_mean)
    said = (doubt.by_member.get(name) for name in members)
    return [
        str(doubt.rank),
        doubt.study_id,
        doubt.row_id,
        doubt.finding.condition.value,
        doubt.finding.level.value,
        doubt.label.title,
        doubt.other.title,
        *(f"{each:.4f}" for each in numbers),
        *(text for pair in said for text in ([f"{each:.4f}" for each in pair] if pair else ["", ""])),
    ]
