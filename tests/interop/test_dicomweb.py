"""DICOMweb client against an archive that fails: retries, limits and secrets."""

import datetime
import io
import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from lumbar_tf.interop.dicomweb import DicomwebArchive, open_archive
from lumbar_tf.interop.dicomweb_connection import (
    AnswerLimits,
    AuthenticationScheme,
    CredentialsFile,
    DicomwebConnection,
)
from lumbar_tf.interop.interfaces import PacsError, PacsFault, StoppedError
from lumbar_tf.interop.study_filter import QueryWindow, StudyFilter, parse_study_filter
from lumbar_tf.serving.connection import TlsFiles
from tests.interop.archive_stand_in import (
    MULTIPART,
    SERIES,
    STUDY,
    ArchiveStandIn,
    Reply,
    Request,
    part,
    serve_archive,
    uid_value,
)


@pytest.fixture
def stand_in() -> Iterator[ArchiveStandIn]:
    with serve_archive(ArchiveStandIn()) as archive:
        yield archive


@pytest.fixture
def result(tmp_path: Path, write_dicom: Callable[..., Path]) -> Path:
    return write_dicom(
        tmp_path / STUDY / "1.2.1.8" / "r.dcm", np.zeros((4, 4), np.uint16), SOPInstanceUID="1.2.1.8.1"
    )


def _open(stand_in: ArchiveStandIn, **changes: object) -> DicomwebArchive:
    connection = DicomwebConnection(stand_in.url, timeout_s=5.0, attempts=3)
    return DicomwebArchive(replace(connection, **changes), sleep=lambda seconds, should_stop: None)


def _fail_images(*replies: Reply) -> Callable[[Request, int], Reply | None]:
    left = list(replies)

    def plan(request: Request, place: int) -> Reply | None:
        return left.pop(0) if "/instances/" in request.path and left else None

    return plan


def test_a_study_is_listed_inspected_and_fetched(stand_in: ArchiveStandIn) -> None:
    archive = _open(stand_in)
    (found,) = archive.find()
    assert (found.study_uid, found.total) == (STUDY, 2)
    overview = archive.inspect(STUDY)
    assert (overview.num_images, overview.is_wanted) == (2, True)
    with archive.fetch(STUDY) as fetched:
        files = sorted(fetched.folder.iterdir())
        assert [path.read_bytes() for path in files] == list(stand_in.images.values())
        # File names contain no text of the archive.
        assert [path.name for path in files] == ["00000.dcm", "00001.dcm"]
    assert not fetched.folder.exists()


def test_fetched_images_are_removed_also_on_failure(stand_in: ArchiveStandIn) -> None:
    with pytest.raises(RuntimeError), _open(stand_in).fetch(STUDY) as fetched:
        raise RuntimeError
    assert not fetched.folder.exists()


@pytest.mark.parametrize(
    "reply",
    [
        Reply(status=503),
        Reply(status=429),
        Reply(status=502),
        Reply(body=part(b"data"), content_type=MULTIPART, cut=9),
    ],
    ids=["503", "429", "502", "broken off"],
)
def test_transient_failures_are_retried(stand_in: ArchiveStandIn, reply: Reply) -> None:
    stand_in.plan = _fail_images(reply, reply)
    with _open(stand_in).fetch(STUDY) as fetched:
        assert fetched.num_images == 2
        assert (fetched.folder / "00000.dcm").read_bytes() == stand_in.images["1.2.1.1.1"]


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        (Reply(status=400), PacsFault.REFUSED),
        (Reply(status=401), PacsFault.DENIED),
        (Reply(status=403), PacsFault.DENIED),
        (Reply(status=404), PacsFault.ABSENT),
        (Reply(status=409, body=b"nonsense"), PacsFault.REFUSED),
        (Reply(status=500), PacsFault.REFUSED),
        (Reply(status=302, headers={"Location": "http://127.0.0.1:1/elsewhere"}), PacsFault.REFUSED),
        (Reply(body=b"<p>Doe^Jane", content_type="text/html"), PacsFault.MALFORMED),
        (Reply(body=b"--line\r\nno", content_type=MULTIPART), PacsFault.MALFORMED),
    ],
    ids=["400", "401", "403", "404", "409", "500", "302", "html", "multipart"],
)
def test_other_failures_are_not_retried(stand_in: ArchiveStandIn, reply: Reply, fault: PacsFault) -> None:
    stand_in.plan = _fail_images(*[reply] * 9)
    with pytest.raises(PacsError) as caught, _open(stand_in).fetch(STUDY):
        pass
    assert caught.value.fault is fault and "Doe" not in str(caught.value)
    assert sum("/instances/" in request.path for request in stand_in.requests) == 1


@pytest.mark.parametrize("body", [b"<html>", b"7", b'["a", 3, null]', b'[{"0020000D": 4}]', b"{}", b"[[]]"])
def test_json_of_another_shape_gives_no_study(stand_in: ArchiveStandIn, body: bytes) -> None:
    stand_in.plan = lambda request, place: Reply(body=body)
    try:
        assert list(_open(stand_in).find()) == []
    except PacsError as error:
        assert error.fault is PacsFault.MALFORMED


@pytest.mark.parametrize("uid", ["../../etc/passwd", "1..2", "a" * 65, "1/2"])
def test_a_uid_that_is_unsafe_in_a_path_is_ignored(stand_in: ArchiveStandIn, uid: str) -> None:
    body = json.dumps([uid_value(t0020000D=uid)]).encode()
    stand_in.plan = lambda request, place: Reply(body=body)
    assert list(_open(stand_in).find()) == []
    with pytest.raises(ValueError, match="StudyInstanceUID"), _open(stand_in).fetch(uid):
        pass


def test_a_timeout_differs_from_a_refused_connection(stand_in: ArchiveStandIn) -> None:
    stand_in.plan = lambda request, place: Reply(stall_s=0.6)
    with pytest.raises(PacsError) as caught:
        list(_open(stand_in, timeout_s=0.1, attempts=2).find())
    assert caught.value.fault is PacsFault.TIMEOUT and len(stand_in.requests) == 2
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(PacsError) as caught:
            list(_open(stand_in, url=url).find())
    assert caught.value.fault is PacsFault.UNAVAILABLE


def test_a_wait_for_the_next_attempt_ends_when_the_program_is_stopped(stand_in: ArchiveStandIn) -> None:
    stand_in.plan = lambda request, place: Reply(status=503)
    connection = DicomwebConnection(stand_in.url)
    with open_archive(connection, should_stop=lambda: True) as archive, pytest.raises(StoppedError):
        list(archive.find())


def test_all_pages_are_read_whatever_their_size(stand_in: ArchiveStandIn) -> None:
    uids = [f"1.2.{number}" for number in range(1, 12)]

    def plan(request: Request, place: int) -> Reply:
        offset = int(request.query["offset"])
        page = [uid_value(t0020000D=uid) for uid in uids[offset : offset + 5]]
        return Reply(body=json.dumps(page).encode())

    stand_in.plan = plan
    assert [study.study_uid for study in _open(stand_in).find()] == uids
    # An archive that ignores `offset` and always returns its first page.
    stand_in.plan = lambda request, place: plan(replace(request, query={"offset": "0"}), place)
    assert [study.study_uid for study in _open(stand_in).find()] == uids[:5]


def test_a_study_above_the_limits_is_refused(
    stand_in: ArchiveStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lumbar_tf.interop.dicomweb.MAX_STUDY_BYTES", 100)
    with pytest.raises(PacsError) as caught, _open(stand_in).fetch(STUDY):
        pass
    assert caught.value.fault is PacsFault.TOO_LARGE
    monkeypatch.setattr("lumbar_tf.interop.dicomweb.MAX_STUDY_INSTANCES", 1)
    with pytest.raises(PacsError, match="at most 1 images"), _open(stand_in).fetch(STUDY):
        pass


def test_a_result_is_stored_unless_the_archive_has_it(stand_in: ArchiveStandIn, result: Path) -> None:
    archive = _open(stand_in)
    archive.store(result)
    (sent,) = stand_in.stored
    assert b"1.2.1.8.1" in sent
    stand_in.held.append("1.2.1.8.1")
    archive.store(result)
    assert len(stand_in.stored) == 1


@pytest.mark.parametrize("status", [200, 202, 409])
def test_the_reason_of_a_failed_storage_is_raised(
    stand_in: ArchiveStandIn, result: Path, status: int
) -> None:
    failed = b'{"00081198":{"vr":"SQ","Value":[{"00081197":{"vr":"US","Value":[272]}}]}}'
    reply = Reply(status=status, body=failed, content_type="application/dicom+json")
    stand_in.plan = lambda request, place: reply if request.method == "POST" else None
    with pytest.raises(PacsError, match="failure reason 0x0110") as caught:
        _open(stand_in).store(result)
    assert caught.value.fault is PacsFault.REFUSED
    assert sum(request.method == "POST" for request in stand_in.requests) == 1


def test_a_refusal_after_a_lost_answer_is_no_failure(stand_in: ArchiveStandIn, result: Path) -> None:
    def plan(request: Request, place: int) -> Reply | None:
        if request.method != "POST":
            return None
        is_first = not stand_in.held
        stand_in.held.append("1.2.1.8.1")
        return Reply(status=503) if is_first else Reply(status=409, body=b"duplicate")

    stand_in.plan = plan
    _open(stand_in).store(result)
    assert sum(request.method == "POST" for request in stand_in.requests) == 2


def test_an_image_that_is_listed_several_times_is_fetched_once(stand_in: ArchiveStandIn) -> None:
    def plan(request: Request, place: int) -> Reply | None:
        if request.path.endswith("/series") and request.query.get("offset") == "0":
            series = [uid_value(t0020000E=f"1.2.1.{number}", t00080060="MR") for number in (1, 2, 3)]
            return Reply(body=json.dumps(series).encode())
        if request.path.endswith("/instances") and request.query.get("offset") == "0":
            return Reply(body=json.dumps([uid_value(t00080018="1.2.1.1.1")] * 47).encode())
        return None

    stand_in.plan = plan
    with _open(stand_in).fetch(STUDY) as fetched:
        assert fetched.num_images == 1 and len(list(fetched.folder.iterdir())) == 1


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", None])
def test_a_fetched_image_must_be_the_one_that_was_requested(
    stand_in: ArchiveStandIn, tmp_path: Path, write_dicom: Callable[..., Path], keyword: str | None
) -> None:
    tags = {"StudyInstanceUID": STUDY, "SeriesInstanceUID": SERIES, "SOPInstanceUID": "1.2.1.1.1"}
    if keyword is not None:
        tags[keyword] = "1.2.7"
    data = write_dicom(tmp_path / "a" / "b" / "c.dcm", np.zeros((4, 4), np.uint16), **tags).read_bytes()
    stand_in.images = {"1.2.1.1.1": data}
    if keyword is None:
        with _open(stand_in).fetch(STUDY) as fetched:
            assert fetched.num_images == 1
        return
    with pytest.raises(PacsError, match=f"another {keyword}") as caught, _open(stand_in).fetch(STUDY):
        pass
    assert caught.value.fault is PacsFault.MALFORMED


def test_the_credentials_of_netrc_are_not_used(
    stand_in: ArchiveStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login user password s3cret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    list(_open(stand_in).find())
    assert "Authorization" not in stand_in.requests[0].headers


def test_a_long_wait_that_the_archive_demands_is_not_shortened(stand_in: ArchiveStandIn) -> None:
    stand_in.plan = lambda request, place: Reply(status=503, headers={"Retry-After": "600"})
    with pytest.raises(PacsError) as caught:
        list(_open(stand_in).find())
    assert caught.value.retry_after_s == 600.0 and len(stand_in.requests) == 1


def test_a_list_has_a_limit_of_pages(stand_in: ArchiveStandIn) -> None:
    stand_in.plan = lambda request, place: Reply(
        body=json.dumps([uid_value(t0020000D=f"1.{place}")]).encode()
    )
    with pytest.raises(PacsError, match="more than 9 pages"):
        list(_open(stand_in, limits=AnswerLimits(pages=9)).find())
    assert len(stand_in.requests) == 9


def test_credentials_are_read_for_each_request_and_never_shown(
    stand_in: ArchiveStandIn, tmp_path: Path
) -> None:
    path = tmp_path / "secret"
    path.write_text("first-token\n")
    archive = _open(stand_in, credentials=CredentialsFile(path, AuthenticationScheme.BEARER))
    list(archive.find())
    path.write_text("second-token")
    list(archive.find())
    sent = [request.headers["Authorization"] for request in stand_in.requests]
    assert sent[0] == "Bearer first-token" and sent[-1] == "Bearer second-token"
    path.write_text("user:word")
    _ = list(_open(stand_in, credentials=CredentialsFile(path, AuthenticationScheme.BASIC)).find())
    assert stand_in.requests[-1].headers["Authorization"] == "Basic dXNlcjp3b3Jk"
    for content, scheme in (
        ("", AuthenticationScheme.BEARER),
        ("s3cret", AuthenticationScheme.BASIC),
        ("s3cret:a\nb", AuthenticationScheme.BASIC),
    ):
        path.write_text(content)
        with pytest.raises(PacsError, match="must contain one line") as caught:
            _open(stand_in, credentials=CredentialsFile(path, scheme))
        assert "s3cret" not in str(caught.value)


def test_a_missing_tls_file_is_an_error(stand_in: ArchiveStandIn, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"ca\.pem"):
        _open(stand_in, tls=TlsFiles(tmp_path / "ca.pem"))


def test_the_query_window_selects_mr_studies_of_some_days() -> None:
    window = QueryWindow(StudyFilter(), 7)
    assert window.filters(datetime.date(2026, 3, 2)) == {
        "ModalitiesInStudy": "MR",
        "StudyDate": "20260223-20260303",
    }
    assert "StudyDate" not in QueryWindow(StudyFilter()).filters(datetime.date(2026, 3, 2))


@pytest.mark.parametrize(
    ("pattern", "texts", "is_wanted"),
    [
        (None, ["MRT LWS"], True),
        (None, ["MRI BRAIN", "t1_sag"], False),
        (None, ["SPINE", "sag t2"], False),
        (None, ["", "", ""], False),
        ("wirbel", ["MRT Wirbelsäule"], True),
        (".*", [""], True),
        ("^x", ["MRI LUMBAR"], False),
    ],
)
def test_the_study_filter_matches_descriptions(
    pattern: str | None, texts: list[str], is_wanted: bool
) -> None:
    assert parse_study_filter(pattern).matches(texts) is is_wanted


def test_an_invalid_regular_expression_is_refused() -> None:
    with pytest.raises(ValueError, match="regular expression"):
        parse_study_filter("(")


def test_the_stored_dataset_equals_the_file(stand_in: ArchiveStandIn, result: Path) -> None:
    _open(stand_in).store(result)
    body = stand_in.stored[0]
    start = body.index(b"\r\n\r\n") + 4
    sent = pydicom.dcmread(io.BytesIO(body[start : body.rindex(b"\r\n--")]))
    assert sent == pydicom.dcmread(result)
