"""Studies that were sent to this program: files below a folder, by study, until they are graded.

incoming/<StudyInstanceUID>/<SOPInstanceUID>.dcm    what came since the study was last fetched
taken/<StudyInstanceUID>/<SOPInstanceUID>.dcm       what is being graded
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from lumbar_tf.dicom.files.headers import read_headered_file
from lumbar_tf.dicom.files.pydicom_warnings import suppress_pydicom_warnings
from lumbar_tf.dicom.origin import read_loose_text
from lumbar_tf.dicom.reasons import RefusedError
from lumbar_tf.dicom.uids import is_safe_id
from lumbar_tf.files import remove_unfinished, replace_atomically
from lumbar_tf.interop.interfaces import (
    MAX_STUDY_INSTANCES,
    FetchedStudy,
    FoundStudy,
    StopCheck,
    StudyOverview,
    never,
)
from lumbar_tf.interop.pacs_errors import PacsError, PacsFault

#: Nothing more is taken when the disk has less than this left.
_MIN_FREE_BYTES = 1 << 30


class IncomingStudies:
    """A `StudySource` of what `receive` is given, from whichever thread.

    Attributes:
        keeps_images: who sent an image need not have it any more.
    """

    keeps_images = False

    def __init__(self, folder: Path) -> None:
        """Takes the folder; nothing else may write there."""
        self._incoming, self._taken = folder / "incoming", folder / "taken"
        # Between a name and a folder that is moved away under it.
        self._lock = Lock()
        for each in (self._incoming, self._taken):
            each.mkdir(parents=True, exist_ok=True)
            for study in each.iterdir():
                remove_unfinished(study)

    def receive(self, data: bytes, instance_uid: str) -> None:
        """Keeps an instance; it is on the disk when this returns.

        Args:
            data: the file.
            instance_uid: the UID that it was announced under.

        Raises:
            PacsError: MALFORMED (it cannot be read, or is not what was announced) or TOO_LARGE (no room).
            OSError: it cannot be written.
        """
        with suppress_pydicom_warnings():
            try:
                dataset = read_headered_file(data).dataset
            except RefusedError as error:
                raise PacsError(PacsFault.MALFORMED, error.reason.value) from None
            study_uid = read_loose_text(dataset, "StudyInstanceUID")
            own_uid = read_loose_text(dataset, "SOPInstanceUID")
        if not is_safe_id(study_uid) or not is_safe_id(own_uid) or own_uid != instance_uid:
            raise PacsError(PacsFault.MALFORMED, "its UIDs are missing, not legal or not those announced")
        if shutil.disk_usage(self._incoming).free < _MIN_FREE_BYTES + len(data):
            raise PacsError(PacsFault.TOO_LARGE, "the disk is full")
        with self._lock:
            folder = self._incoming / study_uid
            if len(_files(folder)) >= MAX_STUDY_INSTANCES:
                raise PacsError(PacsFault.TOO_LARGE, f"study {study_uid} has {MAX_STUDY_INSTANCES} images")
            with replace_atomically(folder / f"{own_uid}.dcm") as temporary:
                temporary.write_bytes(data)

    def find(self) -> Iterator[FoundStudy]:
        """Lists the studies that there are files of."""
        names = {each.name for root in (self._incoming, self._taken) for each in root.iterdir()}
        for name in sorted(names):
            yield FoundStudy(name, self.look(name).num_images)

    def look(self, study_uid: str) -> StudyOverview:
        """Counts a study's images. Whatever is sent here is wanted."""
        names = {
            each.name for each in (*_files(self._incoming / study_uid), *_files(self._taken / study_uid))
        }
        return StudyOverview(len(names), is_wanted=True)

    @contextmanager
    def fetch(self, study_uid: str, should_stop: StopCheck = never) -> Iterator[FetchedStudy]:
        """Lends what has come; it stays until `drop`, and what comes later is kept apart."""
        taken = self._taken / study_uid
        taken.mkdir(exist_ok=True)
        with self._lock:
            for path in _files(self._incoming / study_uid):
                path.replace(taken / path.name)
            shutil.rmtree(self._incoming / study_uid, ignore_errors=True)
        files = _files(taken)
        if not files:
            raise PacsError(PacsFault.ABSENT, f"study {study_uid} has no image here")
        yield FetchedStudy(taken, len(files))

    def drop(self, study_uid: str) -> None:
        """Removes what was fetched."""
        shutil.rmtree(self._taken / study_uid, ignore_errors=True)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.dcm")) if folder.is_dir() else []
