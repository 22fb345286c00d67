import warnings
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from lumbar_tf.dicom.files.tolerant_reading import FileIdentity, read_file_identity

UID = "1.2.826.0.1.77"
Writer = Callable[..., Path]


def _encode(dataset: pydicom.Dataset, syntax: str) -> bytes:
    dataset.file_meta.TransferSyntaxUID = syntax
    buffer = BytesIO()
    pydicom.dcmwrite(
        buffer,
        dataset,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=syntax != ExplicitVRBigEndian,
        force_encoding=True,
    )
    return buffer.getvalue()


@pytest.fixture
def dataset(tmp_path: Path, write_dicom: Writer) -> pydicom.Dataset:
    """Returns an image with a sequence and private elements before its StudyInstanceUID."""
    path = write_dicom(tmp_path / "9" / "1" / "1.dcm", np.zeros((2, 2), np.uint8), StudyInstanceUID=UID)
    dataset = pydicom.dcmread(path)
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = bytes(4)
    dataset["PixelData"].VR = "OB"
    item = pydicom.Dataset()
    item.StudyInstanceUID = "1.9.9"
    item.ReferencedSOPInstanceUID = "1.9.8"
    dataset.ReferencedStudySequence = [item]
    dataset["ReferencedStudySequence"].is_undefined_length = True
    dataset.private_block(0x0019, "MAKER", create=True).add_new(0x01, "OB", bytes(40_000))
    return dataset


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
)
def test_the_uid_is_found_in_every_encoding(tmp_path: Path, dataset: pydicom.Dataset, syntax: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(_encode(dataset, syntax))
    assert read_file_identity(path) == FileIdentity(True, UID)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("has_meta", [True, False])
def test_the_uid_is_found_without_preamble_and_meta(
    tmp_path: Path, dataset: pydicom.Dataset, syntax: str, has_meta: bool
) -> None:
    data = _encode(dataset, syntax)[132:]
    if not has_meta:
        data = data[12 + int.from_bytes(data[8:12], "little") :]
    (tmp_path / "file").write_bytes(data)
    assert read_file_identity(tmp_path / "file") == FileIdentity(True, UID)


def test_every_real_file_is_read_as_pydicom_reads_it(shared_data: Path) -> None:
    paths = sorted((shared_data / "formats").rglob("*.dcm"))
    assert len(paths) == 30
    for path in paths:
        assert read_file_identity(path) == FileIdentity(True, str(pydicom.dcmread(path).StudyInstanceUID))


def test_a_file_without_the_uid_has_an_empty_uid(tmp_path: Path, dataset: pydicom.Dataset) -> None:
    del dataset.StudyInstanceUID
    (tmp_path / "file").write_bytes(_encode(dataset, ExplicitVRLittleEndian))
    assert read_file_identity(tmp_path / "file") == FileIdentity(True, "")


@pytest.mark.parametrize(
    "data", [b"patient,name\n" * 50, b"MZ" + bytes(400), b"%PDF-1.4", b"PK\3\4" + bytes(99)]
)
def test_other_files_are_not_dicom(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "file").write_bytes(data)
    assert read_file_identity(tmp_path / "file") == FileIdentity(False, None)


def test_an_empty_file_counts_as_dicom(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert read_file_identity(tmp_path / "file") == FileIdentity(True, None)


def test_a_deflate_bomb_does_not_unpack(tmp_path: Path, dataset: pydicom.Dataset) -> None:
    data = _encode(dataset, DeflatedExplicitVRLittleEndian)
    start = data.index(b"1.2.840.10008.1.2.1.99")
    meta_end = 132 + 12 + int.from_bytes(data[140:144], "little")
    assert start < meta_end
    # One element of 1 GiB, deflated to a megabyte, before anything else.
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    head = b"\x08\x00\x01\x00OB\0\0" + (1 << 30).to_bytes(4, "little")
    bomb = deflate.compress(head) + b"".join(deflate.compress(bytes(1 << 20)) for _ in range(64))
    (tmp_path / "file").write_bytes(data[:meta_end] + bomb + deflate.flush())
    assert read_file_identity(tmp_path / "file") == FileIdentity(True, None)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(st.data())
def test_damaged_files_raise_no_error(tmp_path: Path, dataset: pydicom.Dataset, data: st.DataObject) -> None:
    syntax = data.draw(st.sampled_from([ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]))
    damaged = bytearray(_encode(dataset, syntax))
    for place in data.draw(st.lists(st.integers(0, 700), max_size=8)):
        damaged[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    (tmp_path / "file").write_bytes(bytes(damaged[:cut]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        head = read_file_identity(tmp_path / "file")
    assert head.study_uid is None or isinstance(head.study_uid, str)
