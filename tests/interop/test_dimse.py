"""Storage SCU with pynetdicom as the receiving node."""

from pathlib import Path

import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from lumbar_tf.interop.dimse import StoreScu, parse_node
from lumbar_tf.interop.interfaces import PacsError, PacsFault
from lumbar_tf.interop.study_grading import store_results
from lumbar_tf.interop.watch_journal import ResultFile
from tests.interop.conftest import STUDIES
from tests.interop.dicom_nodes import SC_STORAGE, SR_STORAGE, receiver


@pytest.mark.parametrize(
    ("status", "fault"), [(0xA700, PacsFault.OVERLOADED), (0xC001, PacsFault.REFUSED), (0xB000, None)]
)
def test_the_status_of_the_receiver_decides_the_failure(
    tmp_path: Path, small_studies: dict[str, list[Path]], status: int, fault: PacsFault | None
) -> None:
    path = small_studies[STUDIES[0]][0]
    dataset = pydicom.dcmread(path)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = SC_STORAGE
    dataset.save_as(path)
    with receiver(status) as (node, _):
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


@pytest.fixture
def result(tmp_path: Path, small_studies: dict[str, list[Path]]) -> Path:
    """A picture as Explicit VR Little Endian."""
    dataset = pydicom.dcmread(small_studies[STUDIES[0]][0])
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = SC_STORAGE
    assert dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    path = tmp_path / "result.dcm"
    dataset.save_as(path)
    return path


def test_a_node_without_the_sop_class_refuses_and_is_not_unavailable(result: Path) -> None:
    with receiver(sop_classes=["1.2.840.10008.1.1"]) as (node, _), pytest.raises(PacsError) as caught:
        StoreScu(node, ae_title="A").store(result)
    assert caught.value.fault is PacsFault.REFUSED and SC_STORAGE in str(caught.value)


def test_a_node_that_takes_implicit_vr_only_gets_the_same_dataset(result: Path) -> None:
    with receiver(syntaxes=[ImplicitVRLittleEndian]) as (node, received):
        StoreScu(node, ae_title="A").store(result)
    (dataset,) = received
    assert dataset.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    sent = pydicom.dcmread(result)
    assert dataset.PixelData == sent.PixelData
    assert [(item.tag, item.value) for item in dataset] == [(item.tag, item.value) for item in sent]


def test_a_refused_report_does_not_withhold_the_sheet(result: Path, tmp_path: Path) -> None:
    report = pydicom.dcmread(result)
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = SR_STORAGE
    report.save_as(tmp_path / "report.dcm")
    files = [ResultFile("1", "report.dcm"), ResultFile("2", "result.dcm")]
    with receiver(sop_classes=[SC_STORAGE]) as (node, received):
        stored = []
        with pytest.raises(PacsError, match=f"does not accept SOP class {SR_STORAGE}") as caught:
            stored.extend(store_results(StoreScu(node, ae_title="A"), tmp_path, files))
    assert caught.value.fault is PacsFault.REFUSED
    assert [dataset.SOPClassUID for dataset in received] == [SC_STORAGE]
