"""Folder of received studies, from their reception by the Storage SCP until they are no longer needed.

incoming/<StudyInstanceUID>/<SOPInstanceUID>.dcm    images received since the study was last fetched
taken/<StudyInstanceUID>/<SOPInstanceUID>.dcm       images that are being graded or were graded
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock, Thread, current_thread

from lumbar_tf.dicom.files.headers import parse_file, suppress_pydicom_warnings
from lumbar_tf.dicom.identifiers import is_safe_id
from lumbar_tf.dicom.reasons import RejectedError
from lumbar_tf.dicom.study import read_optional_text
from lumbar_tf.files import remove_unfinished, replace_atomically, synchronise
from lumbar_tf.interop.interfaces import (
    MAX_STUDY_INSTANCES,
    FetchedStudy,
    FoundStudy,
    PacsError,
    PacsFault,
    StopCheck,
    StudyOverview,
    never,
)

_MIN_FREE_BYTES = 1 << 30


class IncomingStudies:
    """`StudySource` of received images. `receive` and `add_sender` may be called from any thread.

    Attributes:
        keeps_images: False: the sender may have deleted its copy of an image.
    """

    keeps_images = False

    def __init__(self, folder: Path, *, min_free_bytes: int = _MIN_FREE_BYTES) -> None:
        """Creates the folders and removes unfinished files.

        Args:
            folder: folder that no other program writes to.
            min_free_bytes: images are refused when the disk has less free space than this.
        """
        self._incoming, self._taken = folder / "incoming", folder / "taken"
        self._min_free_bytes = min_free_bytes
        # `fetch` must not move a folder while `receive` writes to it.
        self._lock = Lock()
        self._senders: dict[Thread, set[str]] = {}
        for state in (self._incoming, self._taken):
            state.mkdir(parents=True, exist_ok=True)
            for study in state.iterdir():
                remove_unfinished(study)

    def add_sender(self, thread: Thread) -> None:
        """Adds an association; it counts as connected until its thread ends."""
        with self._lock:
            self._senders = {sender: uids for sender, uids in self._senders.items() if sender.is_alive()}
            self._senders[thread] = set()

    def receive(self, data: bytes, instance_uid: str) -> None:
        """Stores an instance; it is on the disk when this returns.

        The thread that calls this is the sender, if `add_sender` was called with it.

        Args:
            data: DICOM file.
            instance_uid: AffectedSOPInstanceUID of the C-STORE request.

        Raises:
            PacsError: MALFORMED (unreadable file, or another UID in it) or TOO_LARGE (the disk is full).
            OSError: the file cannot be written.
        """
        study_uid = _check_uids(data, instance_uid)
        if shutil.disk_usage(self._incoming).free < self._min_free_bytes + len(data):
            raise PacsError(PacsFault.TOO_LARGE, "the disk is full")
        with self._lock:
            self._senders.get(current_thread(), set()).add(study_uid)
            if _has_content(self._taken / study_uid / f"{instance_uid}.dcm", data):
                return  # sent again, because the sender did not receive the status
            folder = self._incoming / study_uid
            if len(_files(folder)) >= MAX_STUDY_INSTANCES:
                raise PacsError(PacsFault.TOO_LARGE, f"study {study_uid} has {MAX_STUDY_INSTANCES} images")
            is_first = not folder.exists()
            with replace_atomically(folder / f"{instance_uid}.dcm") as temporary:
                temporary.write_bytes(data)
            if is_first:
                synchronise(self._incoming)

    def find(self) -> Iterator[FoundStudy]:
        """Lists the studies that have files."""
        names = {study.name for state in (self._incoming, self._taken) for study in state.iterdir()}
        for name in sorted(names):
            yield FoundStudy(name, self.inspect(name).num_images, len(_files(self._incoming / name)))

    def inspect(self, study_uid: str) -> StudyOverview:
        """Counts a study's images. Every received study is wanted."""
        files = (*_files(self._incoming / study_uid), *_files(self._taken / study_uid))
        return StudyOverview(len({file.name for file in files}), is_wanted=True)

    def is_arriving(self, study_uid: str) -> bool:
        """Returns whether an association is open that has sent an image of the study, or none at all yet."""
        with self._lock:
            return any(
                sender.is_alive() and (not uids or study_uid in uids)
                for sender, uids in self._senders.items()
            )

    @contextmanager
    def fetch(self, study_uid: str, should_stop: StopCheck = never) -> Iterator[FetchedStudy]:
        """Provides all received images, which stay until `discard`; later images are kept separately."""
        taken = self._taken / study_uid
        taken.mkdir(exist_ok=True)
        with self._lock:
            for path in _files(self._incoming / study_uid):
                path.replace(taken / path.name)
            shutil.rmtree(self._incoming / study_uid, ignore_errors=True)
        files = _files(taken)
        if not files:
            raise PacsError(PacsFault.ABSENT, f"study {study_uid} has no received image")
        yield FetchedStudy(taken, len(files))

    def kept_since(self, time_s: float) -> Iterator[str]:
        """Lists the studies without a new image whose last fetched image arrived before a time."""
        for study in sorted(self._taken.iterdir()):
            if study.stat().st_mtime < time_s and not _files(self._incoming / study.name):
                yield study.name

    def discard(self, study_uid: str) -> None:
        """Removes the fetched images."""
        with self._lock:
            shutil.rmtree(self._taken / study_uid, ignore_errors=True)


def _check_uids(data: bytes, instance_uid: str) -> str:
    """Returns the StudyInstanceUID of a received file after checking it and the SOPInstanceUID."""
    with suppress_pydicom_warnings():
        try:
            dataset = parse_file(data).dataset
        except RejectedError as error:
            raise PacsError(PacsFault.MALFORMED, error.reason.value) from None
        study_uid = read_optional_text(dataset, "StudyInstanceUID")
        own_uid = read_optional_text(dataset, "SOPInstanceUID")
    if not is_safe_id(study_uid) or not is_safe_id(own_uid) or own_uid != instance_uid:
        raise PacsError(PacsFault.MALFORMED, "its UIDs are missing, invalid or not those of the request")
    return study_uid


def _has_content(path: Path, data: bytes) -> bool:
    return path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.dcm")) if folder.is_dir() else []
