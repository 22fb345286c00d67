"""Log of predictions: one JSON line for each study, appended atomically, without patient data.

A row has the hour (UTC), the version of the export, the quantities of `quantities.measure_answer`, and a
study id only
if ids are pseudonyms: a StudyInstanceUID identifies a patient, and logs are kept for a long time.
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

#: One file for each month (UTC), so that old rows are removed by deleting files.
_NAME = "answers-%Y-%m.jsonl"
_GLOB = "answers-*.jsonl"
#: Without minutes: the time of the prediction is close to the time of the examination.
_TIME = "%Y-%m-%dT%H:00:00Z"


@dataclass(frozen=True)
class LogRow:
    """Quantities of one predicted study.

    Attributes:
        time: hour of the prediction, UTC.
        model: version of the export.
        values: quantities by name; None where a quantity could not be measured.
        study_id: a pseudonym, or None.
    """

    time: datetime
    model: str
    values: Mapping[str, float | None]
    study_id: str | None = None


@dataclass(frozen=True)
class LogWindow:
    """Rows of a log in a period.

    Attributes:
        rows: rows in the order of files and lines.
        num_bad_lines: number of unreadable lines, for example after a power failure.
    """

    rows: tuple[LogRow, ...]
    num_bad_lines: int


class AnswerLog:
    """Appends to the log in a folder; safe with several processes."""

    def __init__(self, folder: Path, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Creates the folder, so that an unusable path fails before work starts.

        Args:
            folder: folder of the log.
            now: returns the current time; for tests.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._now = folder, now

    def append(self, values: Quantities, *, model: str, study_id: str | None = None) -> None:
        """Appends one row and returns after it is written to disk.

        Args:
            values: the quantities.
            model: version of the export.
            study_id: a pseudonym; never an identifier of the hospital.
        """
        now = self._now().astimezone(UTC)
        row: dict[str, Any] = {"time": now.strftime(_TIME), "model": model}
        if study_id is not None:
            row["study_id"] = study_id
        line = json.dumps({**row, "values": values}, allow_nan=False).encode("ascii") + b"\n"
        _append(self._folder / now.strftime(_NAME), line)


def _append(path: Path, line: bytes) -> None:
    """Appends a line; an incomplete last line of a killed process is terminated first."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        lock_descriptor(descriptor)
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = b"\n" + line
        written = os.write(descriptor, line)
        if written != len(line):
            os.ftruncate(descriptor, size)
            raise OSError(f"A row must be written to {path} completely: {written} of {len(line)} bytes were.")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_log(folder: Path, *, since: datetime | None = None, until: datetime | None = None) -> LogWindow:
    """Reads the rows of a period.

    Rows of one version with identical quantities are repeated predictions of one study and count once.
    Studies without images all have the same quantities, so each of them counts.

    Args:
        folder: folder of the log.
        since: start of the period, inclusive.
        until: end of the period, exclusive.

    Raises:
        ValueError: the folder has no log.
    """
    paths = sorted(folder.glob(_GLOB))
    if not paths:
        raise ValueError(f"--log must be a folder with a log of predict --log=DIR. Received: {folder}.")
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
    """Yields the rows of a file, None for an unreadable line."""
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
