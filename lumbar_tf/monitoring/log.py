"""A log of answers: one JSON line a study, appended whole or not at all, that names no person.

A row holds the hour (UTC), the export's version, the quantities of `quantities.measure_answer`, and a study
id only where ids are pseudonyms: a StudyInstanceUID leads to a patient, and a log is kept for long.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lumbar_tf.files import lock_descriptor
from lumbar_tf.monitoring.quantities import Quantities

#: Rows of one month, UTC, so that old ones can be removed by the file.
_NAME = "answers-%Y-%m.jsonl"
_GLOB = "answers-*.jsonl"
#: The minute of grading is next to the minute of the examination.
_TIME = "%Y-%m-%dT%H:00:00Z"


@dataclass(frozen=True)
class LogRow:
    """One answered study.

    Attributes:
        time: the hour of the answer, UTC.
        model: the export's version.
        values: by name; None where something could not be measured.
        study_id: a pseudonym, or None.
    """

    time: datetime
    model: str
    values: Mapping[str, float | None]
    study_id: str | None = None


@dataclass(frozen=True)
class LogWindow:
    """What a log holds of a time.

    Attributes:
        rows: by file and place.
        num_bad_lines: lines that could not be read, such as one that a power cut left.
    """

    rows: tuple[LogRow, ...]
    num_bad_lines: int


class AnswerLog:
    """Appends to the log of a folder; several processes may do so at once."""

    def __init__(self, folder: Path, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Makes the folder, so that a wrong one is found before the work starts."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._now = folder, now

    def append(self, values: Quantities, *, model: str, study_id: str | None = None) -> None:
        """Appends one row and returns when it is on the disk.

        Args:
            values: the quantities.
            model: the export's version.
            study_id: a pseudonym; never an id of the hospital's.
        """
        now = self._now().astimezone(UTC)
        row: dict[str, Any] = {"time": now.strftime(_TIME), "model": model}
        if study_id is not None:
            row["study_id"] = study_id
        line = json.dumps({**row, "values": values}, allow_nan=False).encode("ascii") + b"\n"
        _append(self._folder / now.strftime(_NAME), line)


def _append(path: Path, line: bytes) -> None:
    """Writes a line behind what is there; a line that an earlier kill cut off is ended first."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        lock_descriptor(descriptor)
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = b"\n" + line
        written = os.write(descriptor, line)
        if written != len(line):
            os.ftruncate(descriptor, size)
            raise OSError(f"{path} must take a whole row: {written} of {len(line)} bytes were written.")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_log(folder: Path, *, since: datetime | None = None, until: datetime | None = None) -> LogWindow:
    """Reads the rows of a window.

    Rows of one version that are the same in every number are one study that was graded again, and count once;
    without images all studies have the same numbers, and each counts.

    Args:
        folder: of the log.
        since: the first hour that counts.
        until: the first hour that counts no more.

    Raises:
        ValueError: there is no log.
    """
    paths = sorted(folder.glob(_GLOB))
    if not paths:
        raise ValueError(f"--log must be a folder that predict --log=DIR wrote to. Received: {folder}.")
    rows: list[LogRow] = []
    seen: set[tuple[str, str]] = set()
    num_bad = 0
    for path in paths:
        for row in _read_file(path):
            if row is None:
                num_bad += 1
            elif (since is None or row.time >= since) and (until is None or row.time < until):
                identity = (row.model, json.dumps(dict(row.values), sort_keys=True))
                if identity in seen and _has_images(row):
                    continue
                seen.add(identity)
                rows.append(row)
    return LogWindow(tuple(rows), num_bad)


def _has_images(row: LogRow) -> bool:
    return any(
        value
        for name, value in row.values.items()
        if name.startswith("images/") and name.endswith("/present")
    )


def _read_file(path: Path) -> Iterator[LogRow | None]:
    """Yields the rows of a file, None for a line that is none."""
    with path.open("rb") as file:
        for line in file:
            try:
                content = json.loads(line)
                time = datetime.fromisoformat(content["time"]).astimezone(UTC)
                values = {
                    str(name): None if value is None else float(value)
                    for name, value in content["values"].items()
                }
                yield LogRow(time, str(content["model"]), values, content.get("study_id"))
            except (ValueError, KeyError, TypeError, AttributeError):
                yield None
