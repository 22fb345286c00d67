"""Storage SCP and SCU with pynetdicom as the other nodes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.presentation import build_context

from lumbar_tf.dicom.files.headers import MAX_FILE_BYTES
from lumbar_tf.interop.dimse import MAX_INSTANCE_BYTES, Node, StoreScu, listen, parse_node
from lumbar_tf.interop.incoming_studies import IncomingStudies
from lumbar_tf.interop.interfaces import PacsError, PacsFault
from lumbar_tf.interop.study_grading import StudyGrader
from lumbar_tf.interop.watch_journal import WatchJournal, WatchState
from lumbar_tf.interop.watcher import PollingPolicy, Watch
from tests.interop.conftest import STUDIES
from tests.prediction.test_pipeline import FakeEnsemble

LOCAL = Node("127.0.0.1", 0)
VERIFICATION = "1.2.840.10008.1.1"


def _send(
    port: int, datasets: list[pydicom.Dataset], *, calling: str = "MR1", called: str = "LUMBAR_TF"
) -> list:
    """Sends datasets as a scanner does and returns the statuses; None if the SCP refuses."""
    ae = ApplicationEntity(ae_title=calling)
    contexts = [
        build_context(sop_class, ExplicitVRLittleEndian) for sop_class in (MRImageStorage, CTImageStorage)
    ]
    association = ae.associate("127.0.0.1", port, contexts=contexts, ae_title=called)
    if not association.is_established:
        return [None]
    statuses = []
    for dataset in datasets:
        try:
            statuses.append(association.send_c_store(dataset).get("Status"))
        except (ValueError, RuntimeError):  # no presentation context, or a closed association
            statuses.append(None)
    association.release()
    return statuses


@contextmanager
def _receiver(status: int = 0x0000) -> Iterator[tuple[Node, list[pydicom.Dataset]]]:
    """Runs an archive that accepts every dataset and returns `status`."""
    received: list[pydicom.Dataset] = []

    def store(event: evt.Event) -> int:
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        received.append(dataset)
        return status

    ae = ApplicationEntity(ae_title="PACS")
    for sop_class in ("1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.7"):
        ae.add_supported_context(sop_class)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    try:
        yield Node("127.0.0.1", server.server_address[1], "PACS"), received
    finally:
        server.shutdown()


def test_received_studies_are_graded_once_and_the_results_sent_back(
    tmp_path: Path, small_studies: dict[str, list[Path]]
) -> None:
    out = tmp_path / "out"
    studies = IncomingStudies(out / ".watch")
    journal = WatchJournal(out / ".watch")
    grader = StudyGrader(FakeEnsemble(), out, formats=("dicom",))
    images = {uid: [pydicom.dcmread(path) for path in paths] for uid, paths in small_studies.items()}
    with listen(LOCAL, studies, ae_title="LUMBAR_TF") as port, _receiver() as (node, received):
        clock = [1000.0]
        sink = StoreScu(node, ae_title="LUMBAR_TF", timeout_s=5.0)
        watch = Watch(studies, grader, journal, PollingPolicy(settle_s=60), sink=sink, now=lambda: clock[0])
        first, second = STUDIES
        assert set(_send(port, images[first] + images[second][:6])) == {0x0000}
        watch.poll()
        clock[0] += 59.0
        assert set(_send(port, images[second][6:])) == {0x0000}
        watch.poll()
        clock[0] += 2.0
        watch.poll()
        assert [dataset.StudyInstanceUID for dataset in received] == [first, first]
        clock[0] += 60.0
        watch.poll()
        watch.poll()
        assert [dataset.StudyInstanceUID for dataset in received] == [first, first, second, second]
        assert [dataset.Modality for dataset in received] == ["SR", "OT"] * 2
        # Received images are removed after grading.
        assert list((out / ".watch" / "incoming").iterdir()) == []
        assert list((out / ".watch" / "taken").iterdir()) == []
        # Late images are recorded, but not graded.
        assert set(_send(port, images[first][:2])) == {0x0000}
        watch.poll()
        entry = journal.read(first)
        assert entry is not None and (entry.state, entry.late_images) == (WatchState.STORED, 2)
        watch.poll()
        assert journal.read(first) == entry and len(received) == 4
    kept = pydicom.dcmread(out / first / "dicom" / f"{first}.sr.dcm")
    assert received[0].ContentSequence == kept.ContentSequence


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
        assert _send(port, [], calling="MR2") == [None]
        assert _send(port, [], called="OTHER") == [None]


def test_other_sop_classes_and_wrong_uids_are_refused(
    tmp_path: Path, small_studies: dict[str, list[Path]]
) -> None:
    image = pydicom.dcmread(next(iter(small_studies.values()))[0])
    image.StudyInstanceUID = "../../1"
    scan = pydicom.dcmread(next(iter(small_studies.values()))[1])
    scan.SOPClassUID = scan.file_meta.MediaStorageSOPClassUID = CTImageStorage
    studies = IncomingStudies(tmp_path / "in")
    with listen(LOCAL, studies, ae_title="LUMBAR_TF") as port:
        assert _send(port, [image, scan]) == [0xA900, None]
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
        assert _send(port, [image]) == [0xA700]


def test_an_association_is_closed_when_an_instance_is_too_large(
    tmp_path: Path, small_studies: dict[str, list[Path]]
) -> None:
    image = pydicom.dcmread(small_studies[STUDIES[0]][0])
    image.PixelData = b"\0" * (1 << 20)
    studies = IncomingStudies(tmp_path / "in")
    with listen(LOCAL, studies, ae_title="LUMBAR_TF", max_instance_bytes=4000) as port:
        began = time.monotonic()
        assert _send(port, [image]) == [None]
        assert time.monotonic() - began < 20
    assert MAX_INSTANCE_BYTES < MAX_FILE_BYTES


def test_the_size_limit_counts_each_instance_of_an_association_separately(
    tmp_path: Path, small_studies: dict[str, list[Path]]
) -> None:
    image = pydicom.dcmread(small_studies[STUDIES[0]][1])
    studies = IncomingStudies(tmp_path / "in")
    with listen(LOCAL, studies, ae_title="LUMBAR_TF", max_instance_bytes=30_000) as port:
        assert _send(port, [image] * 40) == [0x0000] * 40


@pytest.mark.parametrize(
    ("status", "fault"), [(0xA700, PacsFault.OVERLOADED), (0xC001, PacsFault.REFUSED), (0xB000, None)]
)
def test_the_status_of_the_receiver_decides_the_failure(
    tmp_path: Path, small_studies: dict[str, list[Path]], status: int, fault: PacsFault | None
) -> None:
    path = small_studies[STUDIES[0]][0]
    dataset = pydicom.dcmread(path)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.save_as(path)
    with _receiver(status) as (node, _):
        if fault is None:
            StoreScu(node, ae_title="A").store(path)
            return
        with pytest.raises(PacsError) as caught:
            StoreScu(node, ae_title="A").store(path)
        assert caught.value.fault is fault
    with pytest.raises(PacsError) as caught:
        StoreScu(node, ae_title="A", timeout_s=2.0).store(path)  # the receiver is shut down
    assert caught.value.fault is PacsFault.UNAVAILABLE


@pytest.mark.parametrize(
    "text", ["pacs", "pacs:104", "A@pacs", "A@pacs:0", "@pacs:1", "A B@pacs:1", "A\\B@p:1"]
)
def test_an_invalid_node_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        parse_node(text, has_title=True)
