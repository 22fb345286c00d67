"""`python -m lumbar_tf.monitor`: has anything moved since the ensemble was built?"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator

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
    """Compares answers that were logged with what is expected, and names what moved.

    Flags:
        --log              Folder that `predict --log=DIR` wrote to.
        --reference        A reference.json, an exported version or the folder of versions (models/lumbar).
        --since            First day or hour that counts, UTC: 2026-11-01 or 2026-11-01T12:00.
        --until            First day or hour that counts no more.
        --format           What is printed: table or json (table).
        --write-reference  Write the window's own distributions to this file, as a reference, and compare
                           nothing: for a site whose studies differ from the training cohort from the start.

    Exit status: 0 nothing moved, 1 something moved (or the window is too small to tell: then stderr says
    ERROR and stdout is empty). A quantity has moved where its population stability index is at least 0.1 and
    chance does not explain it: see docs/serving.md.
    """

    log: Path
    reference: Path | None = None
    since: Time | None = None
    until: Time | None = None
    format: Literal["table", "json"] = "table"
    write_reference: Path | None = None


def monitor(options: MonitorOptions) -> Summary | int:
    """Compares and says what moved."""
    # Here, not above: SciPy takes its time to import, and --help must not wait for it.
    from lumbar_tf.monitoring.drift import (
        compare_window,
        comparison_json,
        comparison_lines,
        summarise_comparison,
    )
    from lumbar_tf.monitoring.log import read_log
    from lumbar_tf.monitoring.reference import (
        find_reference,
        read_reference,
        reference_of_log,
        write_reference,
    )

    if options.write_reference is not None and options.reference is not None:
        raise UsageError("--write-reference compares nothing: leave --reference out.")
    window = read_log(options.log, since=options.since, until=options.until)
    if options.write_reference is not None:
        write_reference(options.write_reference, reference_of_log(window.rows))
        return Summary(
            "Reference written", {"studies": len(window.rows)}, {"reference": options.write_reference}
        )
    reference = read_reference(find_reference(options.reference or Path("models/lumbar")))
    comparison = compare_window(reference, window.rows)
    status = ExitStatus.DATA if comparison.moved else ExitStatus.DONE
    if options.format == "json":
        print_answer(comparison_json(comparison, reference, num_bad_lines=window.num_bad_lines))
        # Nothing may follow the document; --json has the summary.
        return (
            status
            if current_output_options().has_answers
            else summarise_comparison(comparison, reference, status)
        )
    for line in comparison_lines(comparison, reference, num_bad_lines=window.num_bad_lines):
        print_answer(line)
    return summarise_comparison(comparison, reference, status)


if __name__ == "__main__":
    run_command(MonitorOptions, monitor)
