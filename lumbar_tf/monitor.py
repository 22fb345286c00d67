"""`python -m lumbar_tf.monitor`: has anything moved since the ensemble was built?"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

import lumbar_tf
from lumbar_tf.cli.command import CommandOptions, UsageError, run_command
from lumbar_tf.cli.console import ExitStatus, Summary, current_output_options, print_answer


def _parse_time(value: object) -> object:
    """Reads a date or a time; UTC where it names no zone."""
    if not isinstance(value, str):
        return value
    time = datetime.fromisoformat(value)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time


Time = Annotated[datetime, BeforeValidator(_parse_time)]


class MonitorOptions(CommandOptions):
    """Compares logged predictions with a reference, and lists the quantities that have changed.

    The exit status is 0 if nothing has changed, 1 if something has, or if the window has too few studies
    (then stderr has an ERROR and stdout is empty). A quantity has changed if its population stability
    index is at least 0.1 and chance does not explain it; see docs/serving.md.
    """

    log: Path = Field(
        description="Folder of the log of `predict --log=DIR`.",
    )
    reference: Path | None = Field(
        None,
        description="reference.json, an exported version, or the folder of versions. Default: models/lumbar.",
    )
    since: Time | None = Field(
        None,
        description="First day or hour that counts, UTC, such as 2026-11-01 or 2026-11-01T12:00.",
    )
    until: Time | None = Field(
        None,
        description="First day or hour that no longer counts.",
    )
    format: Literal["table", "json"] = Field(
        "table",
        description="Format of the answer: table or json.",
    )
    write_reference: Path | None = Field(
        None,
        description="Compare nothing, and write the window's own distributions to this file as a "
        "reference: for a site whose studies differ from the training cohort from the start.",
    )


def run_monitor(options: MonitorOptions) -> Summary | int:
    """Compares the log with the reference and prints the quantities that changed."""
    window = {"since": options.since, "until": options.until}
    if options.write_reference is not None:
        if options.reference is not None:
            raise UsageError("--write-reference compares nothing: leave --reference out.")
        count = lumbar_tf.write_site_reference(options.log, options.write_reference, **window)
        return Summary("Reference written", {"studies": count}, {"reference": options.write_reference})
    drift = lumbar_tf.monitor(options.log, options.reference or Path("models/lumbar"), **window)
    summary = Summary(
        "Compared",
        {
            "studies": drift.num_studies,
            "version": drift.model_version,
            "quantities": drift.num_quantities,
            "moved": len(drift.moved),
        },
        lists={"moved": drift.moved_json()},
        status=ExitStatus.DATA if drift.moved else ExitStatus.DONE,
    )
    if options.format == "json":
        print_answer(drift.to_json())
        # Nothing may follow the document; --json has the summary.
        return summary.status if current_output_options().has_text else summary
    for line in drift.lines:
        print_answer(line)
    return summary


if __name__ == "__main__":
    run_command(MonitorOptions, run_monitor)
