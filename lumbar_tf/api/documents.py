"""Documents for a publication: the dataset card and the reporting checklists."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lumbar_tf.api.arguments import PathLike, existing, optional_path
from lumbar_tf.cli.arguments import UsageError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Documents:
    """Documents that were written.

    Attributes:
        checklist: the page of the reporting checklists.
        table: the same as a CSV file.
        dataset_card: the dataset card; None without records.
    """

    checklist: Path
    table: Path
    dataset_card: Path | None

    def to_frame(self) -> "pd.DataFrame":
        """Returns the items as a table.

        Columns: `checklist`, `item`, `section`, `subject`, `status` ("filled", "in part" or "blank"),
        `content`, the `files` that contain it, and `blank`, which is what the authors add.
        """
        import pandas as pd

        return pd.read_csv(self.table, dtype=str, keep_default_na=False)


def document(
    out: PathLike = "documents",
    *,
    records: PathLike | None = None,
    runs: PathLike | None = None,
    bundle: PathLike | None = None,
    metrics: PathLike | None = None,
) -> Documents:
    """Writes a dataset card and the reporting checklists CLAIM 2024 and TRIPOD+AI.

    Items are filled with what the files contain; everything else is a named blank.

    Args:
        out: folder for `dataset_card.html`, `checklist.html` and `checklist.csv`.
        records: records, or their `manifest.json`.
        runs: folder of the runs.
        bundle: exported version, or folder of versions, of which the newest is described.
        metrics: `metrics.json` of `evaluate`.

    Raises:
        ValueError: no file is given, or one is missing or malformed.
    """
    from lumbar_tf.models.bundle_folder import find_version
    from lumbar_tf.reports.checklist import PAGE_NAME, TABLE_NAME, read_project, write_checklists
    from lumbar_tf.reports.dataset_card import CARD_NAME, summarise_records, write_dataset_card

    if records is None and runs is None and bundle is None and metrics is None:
        raise UsageError("At least one of `records`, `runs`, `bundle` and `metrics` must be given.")
    summary = None if records is None else summarise_records(Path(records))
    project = read_project(
        records=summary,
        runs=optional_path(runs),
        bundle=None if bundle is None else find_version(Path(bundle)),
        metrics=None if metrics is None else existing(Path(metrics)),
    )
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    if summary is not None:
        write_dataset_card(folder / CARD_NAME, summary)
    write_checklists(folder, project)
    card = None if summary is None else folder / CARD_NAME
    return Documents(folder / PAGE_NAME, folder / TABLE_NAME, card)
