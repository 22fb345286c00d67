"""Faults of a source, and their insertion into a valid source."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lumbar_tf.dicom.reasons import RejectReason
from tests.dicom.made_sources import write_competition, write_export

Write = Callable[[Path], tuple[Path, ...]]


@dataclass(frozen=True)
class SourceFault:
    """A fault of a source.

    Attributes:
        name: description of the fault.
        reason: expected reason code.
        write: function that writes sources into an empty folder and returns their roots.
    """

    name: str
    reason: RejectReason
    write: Write


def in_export(change: Callable[[Path], object]) -> Write:
    """Returns a writer of the valid study with a changed folder."""

    def write(folder: Path) -> tuple[Path, ...]:
        root = write_export(folder / "export")
        change(root)
        return (root,)

    return write


def in_competition(change: Callable[[Path], object]) -> Write:
    """Returns a writer of both studies in the competition's layout with a changed image folder."""

    def write(folder: Path) -> tuple[Path, ...]:
        root = write_competition(folder / "data")
        change(root / "train_images")
        return (root,)

    return write
