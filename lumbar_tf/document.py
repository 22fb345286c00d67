"""`python -m lumbar_tf.document`: dataset card and reporting checklists for a publication."""

from pathlib import Path

from pydantic import Field

import lumbar_tf
from lumbar_tf.cli.command import CommandOptions, run_command
from lumbar_tf.cli.console import Summary


class DocumentOptions(CommandOptions):
    """Writes a dataset card and the checklists CLAIM 2024 and TRIPOD+AI, filled from a project's files.

    At least one input is needed; each fills more items. What the files do not contain is a named blank.
    """

    records: Path | None = Field(
        None,
        description="Records, or their manifest.json: adds the dataset card.",
    )
    runs: Path | None = Field(
        None,
        description="Folder of the runs.",
    )
    bundle: Path | None = Field(
        None,
        description="Exported version, or folder of versions, of which the newest is described.",
    )
    metrics: Path | None = Field(
        None,
        description="metrics.json of evaluate.",
    )
    out: Path = Field(
        Path("documents"),
        description="Folder for dataset_card.html, checklist.html and checklist.csv.",
    )


def run_document(options: DocumentOptions) -> Summary:
    """Writes the documents and counts the items by status."""
    documents = lumbar_tf.document(
        options.out,
        records=options.records,
        runs=options.runs,
        bundle=options.bundle,
        metrics=options.metrics,
    )
    items = documents.to_frame()
    counts = items.groupby("checklist", sort=False)["status"].value_counts().unstack(fill_value=0)
    figures = {
        str(name): ", ".join(f"{row.get(status, 0)} {status}" for status in ("filled", "in part", "blank"))
        for name, row in counts.iterrows()
    }
    paths = {"checklist": documents.checklist, "table": documents.table}
    if documents.dataset_card is not None:
        paths["dataset card"] = documents.dataset_card
    return Summary("Documented", figures, paths)


if __name__ == "__main__":
    run_command(DocumentOptions, run_document)
