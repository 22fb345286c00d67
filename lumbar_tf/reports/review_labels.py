"""Labels to review, as a CSV and as a self-contained HTML page with pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from lumbar_tf.ensemble.label_noise import SuspectLabel
from lumbar_tf.files import write_table_atomically
from lumbar_tf.labels import Condition, finding_index
from lumbar_tf.reports.finding_crops import FindingKey
from lumbar_tf.reports.montage import MontageRow
from lumbar_tf.reports.pages import write_page

PAGE_NAME = "worklist.html"
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


def write_review_table(path: Path, suspects: Sequence[SuspectLabel], members: Sequence[str]) -> None:
    """Writes one row per label, largest disagreement first.

    `label` and `other` are spelt as in `train.csv`. `mean_given` and `mean_other` are the mean probabilities
    of the two grades; `<member>:given` and `<member>:other` those of each member, blank if it has none.

    Args:
        path: the CSV.
        suspects: labels in order of rank.
        members: names of the members, in column order.
    """
    header = [*_COLUMNS, *(f"{name}:{grade}" for name in members for grade in ("given", "other"))]
    write_table_atomically(path, header, (_cells(suspect, members) for suspect in suspects))


def _cells(suspect: SuspectLabel, members: Sequence[str]) -> list[str]:
    numbers = (suspect.disagreement, suspect.given_mean, suspect.other_mean)
    pairs = (suspect.by_member.get(name) for name in members)
    return [
        str(suspect.rank),
        suspect.study_id,
        suspect.row_id,
        suspect.finding.condition.value,
        suspect.finding.level.value,
        suspect.label.title,
        suspect.other.title,
        *(f"{value:.4f}" for value in numbers),
        *(cell for pair in pairs for cell in ([f"{value:.4f}" for value in pair] if pair else ["", ""])),
    ]


def finding_key(suspect: SuspectLabel) -> FindingKey:
    """Returns the key of a label's finding in the result of `cut_finding_crops`."""
    return suspect.study_id, finding_index(suspect.finding.condition, suspect.finding.level)


def write_review_page(
    path: Path,
    suspects: Sequence[SuspectLabel],
    pictures: Mapping[FindingKey, Sequence[MontageRow]],
    *,
    num_labels: int,
    is_synthetic: bool = False,
) -> None:
    """Writes the page, atomically.

    Args:
        path: the HTML file.
        suspects: labels in order of rank.
        pictures: pictures by finding; findings without any are listed without pictures.
        num_labels: number of labels that were compared with predictions, of which `suspects` are the first.
        is_synthetic: whether all studies are synthetic.
    """
    values = {
        "num_labels": num_labels,
        "suspects": [(suspect, pictures.get(finding_key(suspect), ())) for suspect in suspects],
        "conditions": _counts(suspects),
    }
    write_page(path, "review_labels.html", values, is_synthetic=is_synthetic)


def _counts(suspects: Sequence[SuspectLabel]) -> list[tuple[str, int]]:
    """Returns the number of labels to review by condition."""
    return [
        (condition.title, sum(suspect.finding.condition is condition for suspect in suspects))
        for condition in Condition
    ]
