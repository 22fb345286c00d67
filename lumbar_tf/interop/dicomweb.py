"""DICOMweb archive: studies by QIDO-RS and WADO-RS, results by STOW-RS (PS3.18 chapter 10)."""

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

from lumbar_tf.dicom.files.headers import MAX_FILE_BYTES, suppress_pydicom_warnings
from lumbar_tf.dicom.identifiers import check_study_uid
from lumbar_tf.interop.bounded_session import open_session
from lumbar_tf.interop.dicomweb_connection import DicomwebConnection
from lumbar_tf.interop.dicomweb_http import (
    check_image,
    find_count,
    find_text,
    find_uid,
    raise_pacs_error,
    read_store_failures,
    write_instance,
)
from lumbar_tf.interop.interfaces import (
    MAX_STUDY_BYTES,
    MAX_STUDY_INSTANCES,
    FetchedStudy,
    FoundStudy,
    PacsError,
    PacsFault,
    StopCheck,
    StoppedError,
    StudyOverview,
    never,
    wait_unless_stopped,
)
from lumbar_tf.interop.study_filter import MODALITY, QueryWindow, StudyFilter
from lumbar_tf.retry import RetryPolicy, call_with_retries

Result = TypeVar("Result")

#: Attributes that the study filter is applied to.
_FILTERED = ("StudyDescription", "BodyPartExamined", "SeriesDescription")
_SERIES_FIELDS = [*_FILTERED, "NumberOfSeriesRelatedInstances"]
_PAGE_SIZE = 500
#: Upper limit of a list of studies, series or instances, which bounds the memory.
_MAX_LISTED = 100_000
#: Failures of an attempt to store that an archive may answer although it has the instance.
_PERHAPS_STORED = (PacsFault.REFUSED, PacsFault.MALFORMED, PacsFault.TOO_LARGE)
_BLOCK_BYTES = 256 << 10
_ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'


class DicomwebArchive:
    """DICOMweb archive, a `StudySource` and a `ResultSink`. For one thread at a time.

    Attributes:
        keeps_images: True.
    """

    keeps_images = True

    def __init__(
        self,
        connection: DicomwebConnection,
        *,
        window: QueryWindow | None = None,
        scratch: Path | None = None,
        should_stop: StopCheck = never,
        sleep: Callable[[float, StopCheck], None] = wait_unless_stopped,
    ) -> None:
        """Prepares the connection; sends nothing.

        Args:
            connection: connection parameters.
            window: studies that `find` lists.
            scratch: folder for fetched studies; the system's folder for temporary files by default.
            should_stop: called while a request waits, and between its attempts.
            sleep: waits between the attempts.

        Raises:
            OSError: a file of the connection cannot be read.
            PacsError: the credentials file is malformed.
        """
        self._connection, self._limits = connection, connection.limits
        self._window = window or QueryWindow(StudyFilter())
        self._scratch = scratch
        self._policy = RetryPolicy(attempts=connection.attempts)
        self._wait: Callable[[float], None] = lambda seconds: sleep(seconds, should_stop)
        self._session = open_session(connection, should_stop=should_stop)
        # Its messages repeat the server's responses; failures are reported by `PacsError`.
        logging.getLogger("dicomweb_client").setLevel(logging.CRITICAL)
        self._client = DICOMwebClient(
            connection.url, session=self._session, permissive_uid=True, timeout=connection.timeout_s
        )
        # `_request` retries; the client would also retry failures that are not transient.
        self._client.set_http_retry_params(retry=False)

    def find(self) -> Iterator[FoundStudy]:
        """Lists the archive's MR studies, page by page."""
        today = datetime.datetime.now().astimezone().date()
        studies = self._list(
            "list of studies",
            "StudyInstanceUID",
            self._client.search_for_studies,
            fields=["NumberOfStudyRelatedInstances"],
            search_filters=self._window.filters(today),
        )
        for uid, attributes in studies:
            yield FoundStudy(uid, find_count(attributes, "NumberOfStudyRelatedInstances"))

    def inspect(self, study_uid: str) -> StudyOverview:
        """Counts a study's MR images and applies the study filter."""
        began = time.monotonic()
        series = self._list_series(study_uid)
        texts = [find_text(attributes, keyword) for _, attributes in series for keyword in _FILTERED]
        num_images = 0
        for series_uid, attributes in series:
            count = find_count(attributes, "NumberOfSeriesRelatedInstances")
            # Optional in a response (PS3.18 table 10.6.3-4); the images are listed without it.
            num_images += len(self._list_images(study_uid, series_uid)) if count is None else count
            self._check_time(f"study {study_uid}", began, self._limits.list_s)
        return StudyOverview(num_images, self._window.study_filter.matches(texts))

    @contextmanager
    def fetch(self, study_uid: str, should_stop: StopCheck = never) -> Iterator[FetchedStudy]:
        """Fetches a study's MR images one by one; they are removed when the block ends.

        Raises:
            PacsError: the study has no image, or exceeds a limit.
            StoppedError: the program was asked to stop.
        """
        check_study_uid(study_uid)
        began = time.monotonic()
        images = self._find_images(study_uid, began)
        if self._scratch is not None:
            self._scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="lumbar_tf-", dir=self._scratch) as name:
            folder, left = Path(name), MAX_STUDY_BYTES
            for number, (instance_uid, series_uid) in enumerate(images.items()):
                if should_stop():
                    raise StoppedError
                self._check_time(f"study {study_uid}", began, self._limits.study_s)
                uids = (study_uid, series_uid, instance_uid)
                left -= self._fetch_image(folder / f"{number:05d}.dcm", uids, min(left, MAX_FILE_BYTES))
            yield FetchedStudy(folder, len(images))

    def is_arriving(self, study_uid: str) -> bool:
        """Returns False: an archive does not report who is sending."""
        return False

    def kept_since(self, time_s: float) -> Iterator[str]:
        """Lists nothing: fetched images are removed by `fetch`."""
        return iter(())

    def discard(self, study_uid: str) -> None:
        """Does nothing: fetched images are removed by `fetch`."""

    def store(self, path: Path) -> None:
        """Stores a result by STOW-RS, unless the archive has an instance with its UID.

        After a refusal the archive is asked again: the answer to an attempt that succeeded may have been
        lost, and an archive then refuses the next attempt as a duplicate.

        Raises:
            PacsError: the archive does not store it.
        """
        with suppress_pydicom_warnings():
            dataset = pydicom.dcmread(path)
            if self.has_instance(str(dataset.StudyInstanceUID), str(dataset.SOPInstanceUID)):
                return
            request = f"result {dataset.SOPInstanceUID}"
            try:
                response = self._request(
                    request, lambda: self._client.store_instances([dataset], dataset.StudyInstanceUID)
                )
                failures = read_store_failures(response)
                if failures:
                    raise PacsError(PacsFault.REFUSED, f"{request} was not stored: {', '.join(failures)}")
            except PacsError as error:
                is_refused = error.fault is PacsFault.REFUSED
                if is_refused and self.has_instance(
                    str(dataset.StudyInstanceUID), str(dataset.SOPInstanceUID)
                ):
                    return
                raise

    def has_instance(self, study_uid: str, instance_uid: str) -> bool:
        """Returns whether the archive has an instance, by QIDO-RS."""
        keys = {"SOPInstanceUID": instance_uid}
        search = partial(self._client.search_for_instances, study_uid, search_filters=keys)
        found = self._request(f"instance {instance_uid}", search)
        # The UIDs are compared, because an archive may ignore a key that it does not support.
        return any(find_uid(attributes, "SOPInstanceUID") == instance_uid for attributes in found)

    def close(self) -> None:
        """Closes the HTTP session."""
        self._session.close()

    def _find_images(self, study_uid: str, began: float) -> dict[str, str]:
        """Returns the SeriesInstanceUID of each MR image of a study, by its SOPInstanceUID."""
        images: dict[str, str] = {}
        for series_uid, _ in self._list_series(study_uid):
            for image_uid in self._list_images(study_uid, series_uid):
                images.setdefault(image_uid, series_uid)
            self._check_time(f"study {study_uid}", began, self._limits.list_s)
            if len(images) > MAX_STUDY_INSTANCES:
                message = f"study {study_uid} must have at most {MAX_STUDY_INSTANCES} images"
                raise PacsError(PacsFault.TOO_LARGE, message)
        if not images:
            raise PacsError(PacsFault.ABSENT, f"study {study_uid} has no MR image in the archive")
        return images

    @staticmethod
    def _check_time(request: str, began: float, limit_s: float) -> None:
        if time.monotonic() - began > limit_s:
            raise PacsError(PacsFault.TIMEOUT, f"{request}: it takes more than {limit_s:.0f} s")

    def _list_series(self, study_uid: str) -> list[tuple[str, Mapping[str, Any]]]:
        """Returns the MR series of a study, by UID. Descriptions are only returned when requested."""
        series = self._list(
            f"study {study_uid}",
            "SeriesInstanceUID",
            partial(self._client.search_for_series, study_uid),
            fields=_SERIES_FIELDS,
            search_filters={"Modality": MODALITY},
        )
        return [(uid, found) for uid, found in series if find_text(found, "Modality") == MODALITY]

    def _list_images(self, study_uid: str, series_uid: str) -> list[str]:
        search = partial(self._client.search_for_instances, study_uid, series_uid)
        return [uid for uid, _ in self._list(f"series {series_uid}", "SOPInstanceUID", search)]

    def _list(
        self, request: str, keyword: str, search: Callable[..., Any], **keys: Any
    ) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yields the results of a search with their UIDs, page by page.

        Servers choose the size of a page, and some ignore `offset`: the last page is one without a new UID.
        """
        seen: set[str] = set()
        offset = 0
        began = time.monotonic()
        for _ in range(self._limits.pages):
            page = self._request(request, partial(_read_page, search, offset, keys))
            found = {uid: item for item in page if (uid := find_uid(item, keyword)) and uid not in seen}
            if not found:
                return
            seen.update(found)
            if len(seen) > _MAX_LISTED:
                raise PacsError(PacsFault.TOO_LARGE, f"{request}: more than {_MAX_LISTED} entries")
            offset += len(page)
            yield from found.items()
            self._check_time(request, began, self._limits.list_s)
        raise PacsError(PacsFault.TOO_LARGE, f"{request}: more than {self._limits.pages} pages")

    def _fetch_image(self, path: Path, uids: tuple[str, str, str], max_bytes: int) -> int:
        """Fetches an image, checks its UIDs and returns its size, bytes."""
        study_uid, series_uid, instance_uid = uids
        request = f"image {instance_uid}"
        url = f"{self._connection.url}/studies/{study_uid}/series/{series_uid}/instances/{instance_uid}"

        def fetch() -> int:
            with self._session.get(
                url,
                headers={"Accept": _ACCEPT},
                stream=True,
                timeout=self._connection.timeout_s,
            ) as response:
                response.raise_for_status()
                content_type = response.headers.get("Content-Type", "")
                blocks = response.iter_content(_BLOCK_BYTES)
                return write_instance(path, content_type, blocks, request=request, max_bytes=max_bytes)

        size = self._request(request, fetch)
        check_image(path, uids, request=request)
        return size

    def _request(self, request: str, call: Callable[[], Result]) -> Result:
        """Sends a request, again while it fails transiently, and returns its result.

        Raises:
            PacsError: the last failure.
            StoppedError: the program was asked to stop between two attempts.
        """

        def attempt() -> Result:
            with raise_pacs_error(request):
                return call()

        return call_with_retries(attempt, self._policy, sleep=self._wait)


def _read_page(search: Callable[..., Any], offset: int, keys: Mapping[str, Any]) -> list[Any]:
    return list(search(limit=_PAGE_SIZE, offset=offset, **keys))


@contextmanager
def open_archive(
    connection: DicomwebConnection,
    *,
    window: QueryWindow | None = None,
    scratch: Path | None = None,
    should_stop: StopCheck = never,
) -> Iterator[DicomwebArchive]:
    """Provides a `DicomwebArchive` for the duration of a block; see there for the arguments."""
    archive = DicomwebArchive(connection, window=window, scratch=scratch, should_stop=should_stop)
    try:
        yield archive
    finally:
        archive.close()
