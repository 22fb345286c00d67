"""Storage SCP: reception, hostile peers, kills, and images that arrive late."""

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import CTImageStorage
from pynetdicom.ae import ApplicationEntity
from pynetdicom.presentation import build_context

from lumbar_tf.dicom.files.codecs import CODECS, NATIVE_SYNTAXES
from lumbar_tf.dicom.files.headers import MAX_FILE_BYTES, suppress_pydicom_warnings
from lumbar_tf.interop.dimse import Node, StoreScu
from lumbar_tf.interop.incoming_studies import IncomingStudies
from lumbar_tf.interop.interfaces import PacsError, PacsFault
from lumbar_tf.interop.output_formats import STORED_FORMATS
from lumbar_tf.interop.storage_scp import TRANSFER_SYNTAXES, ListenerLimits, listen
from lumbar_tf.interop.study_grading import StudyGrader
from lumbar_tf.interop.watch_journal import WatchJournal, WatchState
from lumbar_tf.interop.watcher import PollingPolicy, Watch
from tests.interop.conftest import STUDIES
from tests.interop.dicom_nodes import LOCAL, associate, receiver, send, send_bytes, stop_inside_a_pdu
from tests.prediction.test_pipeline import FakeEnsemble

ROOT = Path(__file__).resolve().parents[2]
VERIFICATION = "1.2.840.10008.1.1"


def tracking_uids(report: pydicom.Dataset) -> set[str]:
    """Returns the tracking identifiers of a structured report's measurement groups."""
    pending, found = [report], set()
    while pending:
        item = pending.pop()
        pending.extend(item.get("ContentSequence", ()))
        if item.get("ConceptNameCodeSequence") and item.ConceptNameCodeSequence[0].CodeValue == "112040":
            found.add(str(item.UID))
    return found


def wait_until(condition: Callable[[], bool], *, limit_s: float = 10.0) -> None:
    """Waits until a condition holds, and fails after a time."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def send_and_leave(studies: IncomingStudies, port: int, datasets: list[pydicom.Dataset]) -> list[int | None]:
    """Sends datasets and returns the statuses once the association has ended on both sides."""
    statuses = send(port, datasets)
    wait_until(lambda: not any(studies.is_arriving(uid) for uid in STUDIES))
    return statuses


def test_received_studies_are_graded_and_late_images_replace_the_report(
    tmp_path: Path, small_studies: dict[str, list[Path]]
) -> None:
    out = tmp_path / "out"
    studies = IncomingStudies(out / ".watch")
    journal = WatchJournal(out / ".watch")
    grader = StudyGrader(FakeEnsemble(), out, formats=STORED_FORMATS)
    images = {uid: [pydicom.dcmread(path) for path in paths] for uid, paths in small_studies.items()}
    with listen(LOCAL, studies, ae_title="LUMBAR_TF") as port, receiver() as (node, received):
        clock = [1000.0]
        sink = StoreScu(node, ae_title="LUMBAR_TF", timeout_s=5.0)
        policy = PollingPolicy(settle_s=60)
        watch = Watch(studies, grader, journal, policy, sink=sink, now=lambda: clock[0])
        first, second = STUDIES
        assert set(send_and_leave(studies, port, images[first][1:] + images[second][:6])) == {0x0000}
        watch.poll()
        clock[0] += 59.0
        assert set(send_and_leave(studies, port, images[second][6:])) == {0x0000}
        watch.poll()
        clock[0] += 2.0
        watch.poll()
        assert [dataset.StudyInstanceUID for dataset in received] == [first, first]
        clock[0] += 60.0
        watch.poll()
        watch.poll()
        assert [dataset.StudyInstanceUID for dataset in received] == [first, first, second, second]
        assert [dataset.Modality for dataset in received] == ["SR", "OT"] * 2
        # Late images are graded together with the kept ones, also in another watch.
        later = Watch(studies, grader, journal, policy, sink=sink, now=lambda: clock[0])
        assert set(send_and_leave(studies, port, images[first])) == {0x0000}
        later.poll()
        clock[0] += 61.0
        later.poll()
    entry = journal.read(first)
    assert entry is not None and (entry.late_images, entry.num_graded) == (1, 12)
    old, new = received[0], received[4]
    assert [dataset.Modality for dataset in received[4:]] == ["SR", "OT"]
    assert new.SOPInstanceUID != old.SOPInstanceUID
    (item,) = new.PredecessorDocumentsSequence
    (series,) = item.ReferencedSeriesSequence
    (reference,) = series.ReferencedSOPSequence
    assert item.StudyInstanceUID == first and series.SeriesInstanceUID == old.SeriesInstanceUID
    assert reference.ReferencedSOPInstanceUID == old.SOPInstanceUID
    assert reference.ReferencedSOPClassUID == old.SOPClassUID
    assert tracking_uids(old) == tracking_uids(new) and len(tracking_uids(new)) == 25
    kept = pydicom.dcmread(out / first / "dicom" / f"{first}.sr.dcm")
    assert new.ContentSequence == kept.ContentSequence


def test_a_kill_while_grading_keeps_the_received_images(
    tmp_path: Path, small_studies: dict[str, list[Path]]
) -> None:
    studies = IncomingStudies(tmp_path / ".watch")
    uid, paths = next(iter(small_studies.items()))
    for path in paths[:6]:
        studies.receive(path.read_bytes(), str(pydicom.dcmread(path).SOPInstanceUID))
    with studies.fetch(uid) as fetched:
        assert fetched.num_images == 6
    again = IncomingStudies(tmp_path / ".watch")  # another process
    for path in paths[5:]:
        again.receive(path.read_bytes(), str(pydicom.dcmread(path).SOPInstanceUID))
    assert [(study.study_uid, study.total) for study in again.find()] == [(uid, len(paths))]
    with again.fetch(uid) as fetched:
        assert fetched.num_images == len(paths)
    again.discard(uid)
    assert list(again.find()) == []


def test_the_scp_answers_c_echo_and_rejects_other_ae_titles(tmp_path: Path) -> None:
    studies = IncomingStudies(tmp_path)
    with listen(LOCAL, studies, ae_title="LUMBAR_TF", calling=["MR1"]) as port:
        ae = ApplicationEntity(ae_title="MR1")
        association = ae.associate(
            "127.0.0.1", port, contexts=[build_context(VERIFICATION)], ae_title="LUMBAR_TF"
        )
        assert association.send_c_echo().Status == 0x0000
        association.release()
        assert send(port, [], calling="MR2") == [None]
        assert send(port, [], called="OTHER") == [None]


def test_other_sop_classes_and_wrong_uids_are_refused(
    tmp_path: Path, small_studies: dict[str, list[Path]]
) -> None:
    image = pydicom.dcmread(next(iter(small_studies.values()))[0])
    image.StudyInstanceUID = "../../1"
    scan = pydicom.dcmread(next(iter(small_studies.values()))[1])
    scan.SOPClassUID = scan.file_meta.MediaStorageSOPClassUID = CTImageStorage
    studies = IncomingStudies(tmp_path / "in")
    with listen(LOCAL, studies, ae_title="LUMBAR_TF") as port:
        assert send(port, [image, scan]) == [0xA900, None]
    assert list(studies.find()) == []
    assert not list(tmp_path.glob("in/**/*.dcm"))
    for data, uid in ((b"", "1"), (b"nothing", "1"), (small_studies[STUDIES[0]][0].read_bytes(), "1.2")):
        with pytest.raises(PacsError) as caught:
            studies.receive(data, uid)
        assert caught.value.fault is PacsFault.MALFORMED


def test_an_image_is_refused_when_the_disk_is_full(
    tmp_path: Path, small_studies: dict[str, list[Path]]
) -> None:
    image = pydicom.dcmread(small_studies[STUDIES[0]][0])
    studies = IncomingStudies(tmp_path / "in", min_free_bytes=1 << 60)
    with listen(LOCAL, studies, ae_title="LUMBAR_TF") as port:
        assert send(port, [image]) == [0xA700]


def test_an_association_is_closed_when_an_instance_is_too_large(
    tmp_path: Path, small_studies: dict[str, list[Path]]
) -> None:
    image = pydicom.dcmread(small_studies[STUDIES[0]][0])
    image.PixelData = b"\0" * (1 << 20)
    studies = IncomingStudies(tmp_path / "in")
    with listen(LOCAL, studies, ae_title="LUMBAR_TF", limits=ListenerLimits(instance_bytes=4000)) as port:
        began = time.monotonic()
        assert send(port, [image]) == [None]
        assert time.monotonic() - began < 20
    assert ListenerLimits().instance_bytes < MAX_FILE_BYTES


def test_the_size_limit_counts_each_instance_of_an_association_separately(
    tmp_path: Path, small_studies: dict[str, list[Path]]
) -> None:
    image = pydicom.dcmread(small_studies[STUDIES[0]][1])
    studies = IncomingStudies(tmp_path / "in")
    with listen(LOCAL, studies, ae_title="LUMBAR_TF", limits=ListenerLimits(instance_bytes=30_000)) as port:
        assert send(port, [image] * 40) == [0x0000] * 40


def _image(small_studies: dict[str, list[Path]]) -> pydicom.Dataset:
    return pydicom.dcmread(small_studies[STUDIES[0]][1])


def test_connections_that_stop_inside_a_header_do_not_count(
    tmp_path: Path, small_studies: dict[str, list[Path]]
) -> None:
    with listen(LOCAL, IncomingStudies(tmp_path / "in"), ae_title="LUMBAR_TF") as port:
        stopped = [send_bytes(port, b"\x01\x00\x00") for _ in range(6)]
        assert send(port, [_image(small_studies)]) == [0x0000]
        began = time.monotonic()
    # The listener ends although they are still connected.
    assert time.monotonic() - began < 5
    for connection in stopped:
        connection.close()


def test_senders_that_stop_inside_a_pdu_are_closed_after_its_deadline(
    tmp_path: Path, small_studies: dict[str, list[Path]]
) -> None:
    limits = ListenerLimits(pdu_s=1.0)
    with listen(LOCAL, IncomingStudies(tmp_path / "in"), ae_title="LUMBAR_TF", limits=limits) as port:
        stopped = [stop_inside_a_pdu(port) for _ in range(limits.associations)]
        assert send(port, [_image(small_studies)]) == [None]
        wait_until(lambda: send(port, [_image(small_studies)]) == [0x0000])
    for association in stopped:
        association.abort()


def test_a_sender_that_drips_is_closed(tmp_path: Path, small_studies: dict[str, list[Path]]) -> None:
    limits = ListenerLimits(associations=1, idle_s=0.5, idle_bytes=10_000)
    with listen(LOCAL, IncomingStudies(tmp_path / "in"), ae_title="LUMBAR_TF", limits=limits) as port:
        slow = associate(port)
        # Empty PDUs, each of them complete: a PDV with a fragment of one byte.
        drop = b"\x04\x00" + (7).to_bytes(4, "big") + (3).to_bytes(4, "big") + b"\x01\x00\x00"
        end = time.monotonic() + 10.0
        while send(port, [_image(small_studies)]) != [0x0000]:
            assert time.monotonic() < end
            try:
                slow.dul.socket.socket.sendall(drop)
            except (OSError, AttributeError):
                continue
        slow.abort()


def test_a_senders_text_reaches_no_warning_whatever_the_threads_do(
    tmp_path: Path, small_studies: dict[str, list[Path]], recwarn: pytest.WarningsRecorder
) -> None:
    images = [pydicom.dcmread(path) for path in small_studies[STUDIES[0]]]
    studies = IncomingStudies(tmp_path / "in")
    with suppress_pydicom_warnings():  # as the command does
        for image in images:
            image.PatientBirthDate = "the 1st of May"
        with listen(LOCAL, studies, ae_title="LUMBAR_TF") as port:
            threads = [threading.Thread(target=send, args=(port, images)) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    assert studies.inspect(STUDIES[0]).num_images == len(images)
    assert not [str(warning.message) for warning in recwarn]


def count_acceptors() -> int:
    """Returns the number of pynetdicom's threads for connections that it accepted."""
    return sum("AcceptorThread" in thread.name for thread in threading.enumerate())


def test_the_oldest_idle_connection_gives_way_to_a_sender(
    tmp_path: Path, small_studies: dict[str, list[Path]]
) -> None:
    limits = ListenerLimits(connections=4)
    with listen(LOCAL, IncomingStudies(tmp_path / "in"), ae_title="LUMBAR_TF", limits=limits) as port:
        busy = associate(port)
        idle = [send_bytes(port, b"") for _ in range(9)]
        assert send(port, [_image(small_studies)]) == [0x0000]
        assert busy.is_established and busy.send_c_store(_image(small_studies)).Status == 0x0000
        busy.release()
        assert idle[0].recv(1) == b""
        wait_until(lambda: count_acceptors() <= limits.connections)
    for connection in idle:
        connection.close()


def test_a_pdu_above_the_limit_is_not_received(tmp_path: Path) -> None:
    with listen(LOCAL, IncomingStudies(tmp_path / "in"), ae_title="LUMBAR_TF") as port:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with send_bytes(port, b"\x01\x00" + (1_800_000_000).to_bytes(4, "big")) as connection:
            try:
                for _ in range(200):
                    connection.sendall(bytes(1 << 20))
                pytest.fail("200 MiB were received")
            except OSError:
                pass
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10


def test_the_listener_takes_every_transfer_syntax_that_the_reader_decodes(tmp_path: Path) -> None:
    assert set(TRANSFER_SYNTAXES) == {*CODECS, *NATIVE_SYNTAXES} and len(TRANSFER_SYNTAXES) >= 16
    with listen(LOCAL, IncomingStudies(tmp_path / "in"), ae_title="LUMBAR_TF") as port:
        ae = ApplicationEntity(ae_title="MR1")
        contexts = [build_context("1.2.840.10008.5.1.4.1.1.4", syntax) for syntax in TRANSFER_SYNTAXES]
        association = ae.associate("127.0.0.1", port, contexts=contexts, ae_title="LUMBAR_TF")
        accepted = {context.transfer_syntax[0] for context in association.accepted_contexts}
        association.release()
    assert accepted == set(TRANSFER_SYNTAXES)


def test_an_open_association_is_arriving_for_its_studies_only(
    tmp_path: Path, small_studies: dict[str, list[Path]]
) -> None:
    first, second = STUDIES
    studies = IncomingStudies(tmp_path / "in")
    with listen(LOCAL, studies, ae_title="LUMBAR_TF") as port:
        assert not studies.is_arriving(first)
        association = associate(port)
        assert studies.is_arriving(first) and studies.is_arriving(second)
        association.send_c_store(_image(small_studies))
        assert studies.is_arriving(first) and not studies.is_arriving(second)
        association.release()
        wait_until(lambda: not studies.is_arriving(first))


def test_an_image_that_is_sent_again_after_grading_is_not_new(
    tmp_path: Path, small_studies: dict[str, list[Path]]
) -> None:
    studies = IncomingStudies(tmp_path)
    paths = small_studies[STUDIES[0]]
    uids = [str(pydicom.dcmread(path).SOPInstanceUID) for path in paths]
    for path, uid in zip(paths, uids, strict=True):
        studies.receive(path.read_bytes(), uid)
    with studies.fetch(STUDIES[0]):
        pass
    studies.receive(paths[0].read_bytes(), uids[0])
    assert [study.num_new for study in studies.find()] == [0]
    changed = pydicom.dcmread(paths[0])
    changed.PatientComments = "corrected"
    changed.save_as(paths[0])
    studies.receive(paths[0].read_bytes(), uids[0])
    assert [(study.num_new, study.total) for study in studies.find()] == [(1, len(paths))]
    os.utime(tmp_path / "taken" / STUDIES[0], (1000.0, 1000.0))
    assert list(studies.kept_since(2000.0)) == []
    with studies.fetch(STUDIES[0]) as fetched:
        assert "corrected" in (fetched.folder / f"{uids[0]}.dcm").read_bytes().decode("latin-1")
    os.utime(tmp_path / "taken" / STUDIES[0], (1000.0, 1000.0))
    assert list(studies.kept_since(2000.0)) == [STUDIES[0]] and list(studies.kept_since(500.0)) == []


def test_no_answered_image_is_lost_through_kills(
    tmp_path: Path, small_studies: dict[str, list[Path]]
) -> None:
    answered, received, _ = send_through_kills(tmp_path / "out", small_studies, num_kills=3)
    assert all(len(uids) == 12 for uids in answered.values())
    for study_uid, uids in answered.items():
        assert evidence_uids(received, study_uid) == uids


def evidence_uids(received: list[pydicom.Dataset], study_uid: str) -> set[str]:
    """Returns the images of the report of a study that was stored last."""
    reports = [item for item in received if item.Modality == "SR" and item.StudyInstanceUID == study_uid]
    found = set()
    for item in reports[-1].CurrentRequestedProcedureEvidenceSequence:
        for series in item.ReferencedSeriesSequence:
            found.update(str(image.ReferencedSOPInstanceUID) for image in series.ReferencedSOPSequence)
    return found


def send_through_kills(
    out: Path, files: dict[str, list[Path]], *, num_kills: int, pause_s: float = 0.05
) -> tuple[dict[str, set[str]], list[pydicom.Dataset], int]:
    """Sends studies slowly to a listener that is killed again and again, and waits for the results.

    Returns:
        The images of each study that were answered with success, the stored results in their order, and how
        often an image was answered.
    """
    rng = np.random.default_rng(num_kills)
    queue = [(uid, path) for paths in zip(*files.values(), strict=True)
             for uid, path in zip(files, paths, strict=True)]  # fmt: skip
    answered: dict[str, set[str]] = {uid: set() for uid in files}
    num_answers = 0
    with receiver() as (node, received), running_listener(out, node) as (port, kill):
        kills = 0
        while queue or kills < num_kills:
            association = associate(port)
            if not association.is_established:
                time.sleep(0.1)
                continue
            # After the last image the first ones are sent again, as a scanner does that got no answer.
            for uid, path in queue or [(uid, paths[0]) for uid, paths in files.items()]:
                dataset = pydicom.dcmread(path)
                try:
                    status = association.send_c_store(dataset).get("Status")
                except RuntimeError:
                    break
                if status != 0x0000:
                    break
                num_answers += 1
                answered[uid].add(str(dataset.SOPInstanceUID))
                queue = [(other, place) for other, place in queue if place != path]
                if kills < num_kills and rng.random() < 0.3:
                    time.sleep(float(rng.uniform(0.0, 2.0)))
                    kill()
                    kills += 1
                    break
                time.sleep(pause_s)
            association.release()
        journal = WatchJournal(out / ".watch")
        wait_until(
            lambda: all(_is_stored(journal, uid, len(uids)) for uid, uids in answered.items()),
            limit_s=30.0 * len(files),
        )
    return answered, received, num_answers


def _is_stored(journal: WatchJournal, study_uid: str, num_images: int) -> bool:
    entry = journal.read(study_uid)
    return entry is not None and entry.state is WatchState.STORED and entry.num_graded == num_images


@contextmanager
def running_listener(out: Path, node: Node) -> Iterator[tuple[int, Callable[[], None]]]:
    """Runs `listener_process` for the duration of a block; yields its port, and a kill and restart of it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "tests.interop.listener_process", str(out), str(port), str(node)]
    processes = [subprocess.Popen(words, cwd=ROOT)]

    def kill() -> None:
        processes[-1].kill()
        processes[-1].wait()
        processes.append(subprocess.Popen(words, cwd=ROOT))

    try:
        yield port, kill
        # It ends although a connection is open.
        with send_bytes(port, b"\x01\x00\x00"):
            processes[-1].send_signal(signal.SIGTERM)
            assert processes[-1].wait(30) == 0
    finally:
        processes[-1].kill()
        processes[-1].wait()
