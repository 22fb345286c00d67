"""`python -m lumbar_tf.verify`: verification of records, alone or against their DICOM files."""

from pathlib import Path

from pydantic import Field, PositiveInt

import lumbar_tf
from lumbar_tf.cli.command import CommandOptions, PathList, UsageError, existing_file, run_command
from lumbar_tf.cli.console import ExitStatus, Summary, print_answer, print_warning


class VerifyOptions(CommandOptions):
    """Finds everything that is wrong with a folder of records.

    Prints a line for each fault: file, record, study, code, message. docs/ingestion.md lists the codes. The
    exit status is 0 without faults, 1 with faults.
    """

    records: Path = Field(
        Path("tfrecords"),
        description="Folder of the records. With --phi also any other output, such as that of predict.",
    )
    data: PathList = Field(
        (),
        description="Source that was given to build_records: every study is read and encoded again, and "
        "compared byte for byte.",
    )
    phi: bool = Field(
        False,
        description="Search every file of the folder for the names, dates, numbers, addresses and free "
        "texts in the source's headers. Needs --data.",
    )
    workers: PositiveInt = Field(
        1,
        description="Number of processes.",
    )
    series_map: Path | None = Field(
        None,
        description="The file that was given to build_records.",
    )
    pseudonym_key_file: Path | None = Field(
        None,
        description="The file that was given to build_records.",
    )


def run_verify(options: VerifyOptions) -> Summary:
    """Verifies the folder and prints its faults."""
    if not options.data and (options.phi or options.series_map or options.pseudonym_key_file):
        raise UsageError("--phi, --series-map and --pseudonym-key-file need the source: --data.")
    found = lumbar_tf.verify(
        options.records,
        data=options.data,
        phi=options.phi,
        workers=options.workers,
        series_map=existing_file(options.series_map) if options.series_map else None,
        pseudonym_key_file=options.pseudonym_key_file,
        verbose=True,
    )
    if found.num_unread:
        print_warning(
            f"{found.num_unread} files of the source have headers that cannot be read, and were not used."
        )
    for fault in found.faults:
        print_answer(str(fault))
    figures: dict[str, int | list[str]] = {}
    if found.num_records is not None:
        figures["sound records"] = found.num_records
        figures["studies"] = found.num_studies
        figures["shards"] = found.num_shards
    if found.num_phrases is not None:
        figures["phrases searched for"] = found.num_phrases
        figures["studies of the source"] = found.num_source_studies
    figures["damages"] = len(found.faults)
    if found.faults:
        figures["kinds"] = [f"{count} x {code}" for code, count in found.counts.items()]
    return Summary(
        f"Verified: {'damaged' if found.faults else 'nothing is wrong'}",
        figures,
        {"records": options.records},
        lists={"found": [str(fault) for fault in found.faults]},
        status=ExitStatus.DATA if found.faults else ExitStatus.DONE,
    )


if __name__ == "__main__":
    run_command(VerifyOptions, run_verify)
