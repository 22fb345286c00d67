"""`python -m lumbar_tf.verify`: verification of records, alone or against their DICOM files."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import PositiveInt

from lumbar_tf.cli.command import CommaList, CommandOptions, UsageError, existing_file, run_command
from lumbar_tf.cli.console import ExitStatus, Summary, print_answer, print_warning
from lumbar_tf.cli.progress import progress_bar

if TYPE_CHECKING:
    from lumbar_tf.records.cohort import Cohort
    from lumbar_tf.records.issues import RecordIssue
    from lumbar_tf.records.verification import Verification


class VerifyOptions(CommandOptions):
    """Names everything that is wrong with a finished folder.

    Flags:
        --records             What build_records wrote (tfrecords); with --phi also any other output, such
                              as what predict wrote.
        --data                The source, as it was given to build_records: every study is read and encoded
                              again, and compared byte for byte.
        --phi                 Search every file of the folder for the names, dates, numbers, addresses and
                              free texts in the source's headers. Needs --data.
        --workers             Processes (1).
        --series-map          The one that build_records was given.
        --pseudonym-key-file  The one that build_records was given.

    Prints a line for each damage: file, record, study, code, message. docs/ingestion.md lists the codes.
    Exit status 0 where there is none, 1 where there is.
    """

    records: Path = Path("tfrecords")
    data: CommaList = ()
    phi: bool = False
    workers: PositiveInt = 1
    series_map: Path | None = None
    pseudonym_key_file: Path | None = None


def verify(options: VerifyOptions) -> Summary:
    """Verifies the folder and prints the issues."""
    # Imported here so that --help is fast.
    from lumbar_tf.privacy.pseudonyms import read_key
    from lumbar_tf.records.cohort import open_cohort

    if not options.data and (options.phi or options.series_map or options.pseudonym_key_file):
        raise UsageError("--phi, --series-map and --pseudonym-key-file need the source: --data.")
    series_map = existing_file(options.series_map) if options.series_map else None
    key = read_key(options.pseudonym_key_file) if options.pseudonym_key_file else None
    verification = _verify_records(options)
    found = list(verification.found) if verification else []
    searched: dict[str, int] = {}
    if options.data:
        sources = [Path(each) for each in options.data]
        with open_cohort(sources, series_map=series_map, key=key) as cohort:
            if verification:
                found += _verify_source(options, verification, cohort, key)
            if options.phi:
                faults, num_phrases = _scan(options, cohort, are_ids_secret=key is not None)
                found += faults
                searched = {"phrases searched for": num_phrases, "studies of the source": len(cohort.jobs)}
    for issue in found:
        print_answer(str(issue))
    return _summarise(options, verification, found, searched)


def _verify_records(options: VerifyOptions) -> "Verification | None":
    """Verifies the records alone; None if --phi is given and the folder contains no records."""
    from lumbar_tf.records.table_check import check_tables
    from lumbar_tf.records.verification import Verification, holds_records, verify_records

    if options.phi and options.records.is_dir() and not holds_records(options.records):
        return None
    verification = verify_records(
        options.records,
        workers=options.workers,
        progress=lambda total: progress_bar("Reading shards", total, unit="shard"),
    )
    faults = check_tables(options.records, verification)
    return Verification(verification.manifest, verification.records, (*verification.found, *faults))


def _verify_source(
    options: VerifyOptions, verification: "Verification", cohort: "Cohort", key: bytes | None
) -> "Sequence[RecordIssue]":
    from functools import partial

    from lumbar_tf.records.cohort import make_study_records
    from lumbar_tf.records.source_check import verify_source

    if verification.manifest is None:
        return ()
    built = verification.manifest.options
    if built.is_pseudonymised != (key is not None):
        raise UsageError(
            "--pseudonym-key-file must be given if and only if records contain pseudonyms. These "
            f"{'do' if built.is_pseudonymised else 'do not'}."
        )
    return verify_source(
        options.records,
        verification,
        cohort.jobs,
        partial(make_study_records, options=built, key=key),
        workers=options.workers,
        progress=lambda total: progress_bar("Reading the source", total),
    )


def _scan(
    options: VerifyOptions, cohort: "Cohort", *, are_ids_secret: bool
) -> "tuple[Sequence[RecordIssue], int]":
    """Returns the identifying values found, and the number of phrases searched for."""
    from lumbar_tf.privacy.identifying_values import collect_identifying_values
    from lumbar_tf.records.identifying_text import find_identifying_text

    values = collect_identifying_values(
        [job.files for job in cohort.jobs],
        are_ids_secret=are_ids_secret,
        workers=options.workers,
        progress=lambda total: progress_bar("Reading headers", total),
    )
    found = find_identifying_text(
        options.records,
        values,
        workers=options.workers,
        progress=lambda total: progress_bar("Searching", total, unit="file"),
    )
    if values.num_unread:
        print_warning(f"{values.num_unread} files of the source have unreadable headers and were not used.")
    return found, len(values.tags)


def _summarise(
    options: VerifyOptions,
    verification: "Verification | None",
    found: "Sequence[RecordIssue]",
    searched: dict[str, int],
) -> Summary:
    figures: dict[str, int | list[str]] = {}
    if verification:
        figures["sound records"] = len(verification.records)
        figures["studies"] = len({record.study_id for record in verification.records})
        figures["shards"] = len({record.file for record in verification.records})
    counts = Counter(issue.code.value for issue in found)
    figures |= {**searched, "damages": len(found)}
    if found:
        figures["kinds"] = [f"{count} x {code}" for code, count in sorted(counts.items())]
    return Summary(
        f"Verified: {'damaged' if found else 'nothing is wrong'}",
        figures,
        {"records": options.records},
        lists={"found": [str(issue) for issue in found]},
        status=ExitStatus.DATA if found else ExitStatus.DONE,
    )


if __name__ == "__main__":
    run_command(VerifyOptions, verify)
