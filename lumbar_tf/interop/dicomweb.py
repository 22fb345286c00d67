"""A DICOMweb archive: studies by QIDO-RS and WADO-RS, results by STOW-RS (PS3.18 chapter 10)."""

import datetime
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pydicom
from dicomweb_client.web import DICOMwebClient

from lumbar_tf.dicom.files.headers import MAX_FILE_BYTES
from lumbar_tf.dicom.files.pydicom_warnings import suppress_pydicom_warnings
from lumbar_tf.dicom.uids import check_study_uid
from lumbar_tf.interop.dicomweb_connection import DicomwebConnection
from lumbar_tf.interop.dicomweb_responses import (
    find_text,
    find_uid,
    raise_pacs_error,
    read_store_failures,
)
from lumbar_tf.interop.http_session import open_session
from lumbar_tf.interop.interfaces import (
    MAX_STUDY_BYTES,
    MAX_STUDY_INSTANCES,
    FetchedStudy,
    FoundStudy,
    StopCheck,
    StudyOverview,
    never,
)
from lumbar_tf.interop.multipart import write_instance
from lumbar_tf.interop.pacs_errors import PacsError, PacsFault, StoppedError
from lumbar_tf.interop.study_filter import MODALITY, QueryWindow, StudyFilter
from lumbar_tf.serving.retry import RetryPolicy, call_with_retries

Answer = TypeVar("Answer")

#: What the rule is applied to.
_TEXTS = ("StudyDescription", "BodyPartExamined", "SeriesDescription")
_PAGE = 500
#: A longer list is cut off here, so that no archive fills the memory.
_MAX_LISTED = 100_000
_BLOCK_BYTES = 256 << 10
_ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'


class DicomwebArchive:
    """A `StudySource` and `ResultSink`. One thread at a time.

    Attributes:
        keeps_images: an archive does.
    """

    keeps_images = True

    def __init__(
        self,
        connection: DicomwebConnection,
        *,
        window: QueryWindow | None = None,
        scratch: Path | None = None,
        should_stop: StopCheck = never,
    ) -> None:
        """Takes how it is asked; nothing is sent yet.

        Args:
            connection: where and who.
            window: which studies `find` lists.
            scratch: fetched studies lie below it for as long as they are needed; the system's folder for
                temporary files by default.
            should_stop: asked between attempts.

        Raises:
            OSError: a file of the connection cannot be read.
            PacsError: the secret's file holds none.
        """
        self._connection = connection
        self._window = window or QueryWindow(StudyFilter())
        self._scratch = scratch
        self._should_stop = should_stop
        self._policy = RetryPolicy(attempts=connection.attempts)
        self._session = open_session(connection)
        # It repeats what a server says; failures are told by `PacsError`.
        logging.getLogger("dicomweb_client").setLevel(logging.CRITICAL)
        self._client = DICOMwebClient(
            connection.url, session=self._session, permissive_uid=True, timeout=connection.timeout_s
        )
        # `_ask` does it: the client would also ask again where the answer is no.
        self._client.set_http_retry_params(retry=False)

    def find(self) -> Iterator[FoundStudy]:
        """Lists the archive's MR studies, page by page."""
        today = datetime.datetime.now().astimezone().date()
        studies = self._list(
            "the list of studies",
            "StudyInstanceUID",
            self._client.search_for_studies,
            fields=["NumberOfStudyRelatedInstances"],
            search_filters=self._window.filters(today),
        )
        for uid, each in studies:
            total = find_text(each, "NumberOfStudyRelatedInstances")
            yield FoundStudy(uid, int(total) if total.isdecimal() else None)

    def look(self, study_uid: str) -> StudyOverview:
        """Counts a study's MR images and applies the rule."""
        series = self._list_series(study_uid)
        texts = [find_text(each, keyword) for _, each in series for keyword in _TEXTS]
        count = 0
        for series_uid, each in series:
            told = find_text(each, "NumberOfSeriesRelatedInstances")
            # Optional for an archive to tell (PS3.18 table 10.6.3-4), and then the images are counted.
            count += int(told) if told.isdecimal() else len(self._list_images(study_uid, series_uid))
        return StudyOverview(count, self._window.rule.matches(texts))

    @contextmanager
    def fetch(self, study_uid: str, should_stop: StopCheck = never) -> Iterator[FetchedStudy]:
        """Fetches a study's MR images one after the other; they are removed when the block ends.

        Raises:
            PacsError: the study has none, or too much.
            StoppedError: the program was asked to stop.
        """
        check_study_uid(study_uid)
        images = [
            (series_uid, image_uid)
            for series_uid, _ in self._list_series(study_uid)
            for image_uid in self._list_images(study_uid, series_uid)
        ]
        if not images:
            raise PacsError(PacsFault.ABSENT, f"study {study_uid} has no MR image in the archive")
        if len(images) > MAX_STUDY_INSTANCES:
            said = f"study {study_uid} must have at most {MAX_STUDY_INSTANCES} images, not {len(images)}"
            raise PacsError(PacsFault.TOO_LARGE, said)
        if self._scratch is not None:
            self._scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="lumbar_tf-", dir=self._scratch) as name:
            folder, left = Path(name), MAX_STUDY_BYTES
            for place, (series_uid, instance_uid) in enumerate(images):
                if should_stop():
                    raise StoppedError
                url = f"{study_uid}/series/{series_uid}/instances/{instance_uid}"
                left -= self._fetch_image(folder / f"{place:05d}.dcm", url, min(left, MAX_FILE_BYTES))
            yield FetchedStudy(folder, len(images))

    def drop(self, study_uid: str) -> None:
        """Nothing is kept on this side."""

    def store(self, path: Path) -> None:
        """Stores a result by STOW-RS, unless the archive has an instance of its UID.

        Raises:
            PacsError: the archive does not take it.
        """
        with suppress_pydicom_warnings():
            dataset = pydicom.dcmread(path)
            if self.holds(str(dataset.StudyInstanceUID), str(dataset.SOPInstanceUID)):
                return
            what = f"result {dataset.SOPInstanceUID}"
            answer = self._ask(
                what, lambda: self._client.store_instances([dataset], dataset.StudyInstanceUID)
            )
        failures = read_store_failures(answer)
        if failures:
            raise PacsError(PacsFault.REFUSED, f"{what} was not stored: {', '.join(failures)}")

    def holds(self, study_uid: str, instance_uid: str) -> bool:
        """Whether the archive has an instance, by QIDO-RS."""
        found = self._ask(
            f"instance {instance_uid}",
            partial(
                self._client.search_for_instances, study_uid, search_filters={"SOPInstanceUID": instance_uid}
            ),
        )
        # Not the number of answers: an archive may pass over a key that it does not know.
        return any(find_uid(each, "SOPInstanceUID") == instance_uid for each in found)

    def close(self) -> None:
        """Ends the connection."""
        self._session.close()

    def _list_series(self, study_uid: str) -> list[tuple[str, Mapping[str, Any]]]:
        # Descriptions are optional to return, so they are asked for by name.
        fields = [
            "StudyDescription",
            "BodyPartExamined",
            "SeriesDescription",
            "NumberOfSeriesRelatedInstances",
        ]
        series = self._list(
            f"study {study_uid}",
            "SeriesInstanceUID",
            partial(self._client.search_for_series, study_uid),
            fields=fields,
            search_filters={"Modality": MODALITY},
        )
        return [(uid, each) for uid, each in series if find_text(each, "Modality") == MODALITY]

    def _list_images(self, study_uid: str, series_uid: str) -> list[str]:
        search = partial(self._client.search_for_instances, study_uid, series_uid)
        return [uid for uid, _ in self._list(f"series {series_uid}", "SOPInstanceUID", search)]

    def _list(
        self, what: str, keyword: str, search: Callable[..., Any], **keys: Any
    ) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yields what a search finds, by UID, page by page.

        Servers bound a page as they please, and some pass over `offset`: the end is a page with nothing new.
        """
        seen: set[str] = set()
        offset = 0
        while True:
            page = self._ask(what, partial(_read_page, search, offset, keys))
            found = {uid: each for each in page if (uid := find_uid(each, keyword)) and uid not in seen}
            if not found or len(seen) > _MAX_LISTED:
                return
            seen.update(found)
            offset += len(page)
            yield from found.items()

    def _fetch_image(self, path: Path, place: str, max_bytes: int) -> int:
        what = f"image {place.rpartition('/')[2]}"

        def get() -> int:
            with self._session.get(
                f"{self._connection.url}/studies/{place}",
                headers={"Accept": _ACCEPT},
                stream=True,
                timeout=self._connection.timeout_s,
            ) as answer:
                answer.raise_for_status()
                content_type = answer.headers.get("Content-Type", "")
                blocks = answer.iter_content(_BLOCK_BYTES)
                return write_instance(path, content_type, blocks, what=what, max_bytes=max_bytes)

        return self._ask(what, get)

    def _ask(self, what: str, call: Callable[[], Answer]) -> Answer:
        """Sends a request, again where the failure is transient, and returns its result.

        Raises:
            PacsError: the last failure.
            StoppedError: the program was asked to stop between two attempts.
        """

        def attempt() -> Answer:
            with raise_pacs_error(what):
                return call()

        return call_with_retries(attempt, self._policy, sleep=partial(_sleep, should_stop=self._should_stop))


def _read_page(search: Callable[..., Any], offset: int, keys: Mapping[str, Any]) -> list[Any]:
    return list(search(limit=_PAGE, offset=offset, **keys))


@contextmanager
def open_archive(
    connection: DicomwebConnection,
    *,
    window: QueryWindow | None = None,
    scratch: Path | None = None,
    stop: StopCheck = never,
) -> Iterator[DicomwebArchive]:
    """Lends a `DicomwebArchive`; see there."""
    archive = DicomwebArchive(connection, window=window, scratch=scratch, should_stop=stop)
    try:
        yield archive
    finally:
        archive.close()


def _sleep(seconds: float, should_stop: StopCheck) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if should_stop():
            raise StoppedError
        time.sleep(min(left, 0.2))
