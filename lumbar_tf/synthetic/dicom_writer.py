"""DICOM files of rendered slices, with the same present and absent tags as the competition's files."""

from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import EnhancedMRImageStorage, RLELossless

from lumbar_tf.dicom.geometry import SliceGeometry
from lumbar_tf.synthetic.patch import SyntheticContrast

_MAX_STORED = 4095  # 12 bits
_IMPLEMENTATION_UID = "1.2.826.0.1.3680043.10.1475.1"  # under pydicom's free UID prefix


@dataclass(frozen=True)
class SliceTags:
    """Tags of a file besides pixels and geometry.

    Attributes:
        patient_id: PatientID.
        study_id: StudyInstanceUID, a plain number as in the competition.
        series_id: second part of SeriesInstanceUID.
        series_ordinal: ordinal of the series in the study, from 1; part of SOPInstanceUID.
        instance_number: InstanceNumber and file name.
        weighting: SeriesDescription.
        thickness_mm: SliceThickness.
        spacing_mm: SpacingBetweenSlices.
    """

    patient_id: str
    study_id: str
    series_id: str
    series_ordinal: int
    instance_number: int
    weighting: SyntheticContrast
    thickness_mm: float
    spacing_mm: float


def write_slice(path: Path, pixels: NDArray[np.uint16], geometry: SliceGeometry, tags: SliceTags) -> None:
    """Writes one RLE Lossless file.

    Args:
        path: output file; its folder must exist.
        pixels: uint16 [rows, columns], at most 4095.
        geometry: geometry of the slice.
        tags: identity and acquisition.
    """
    dataset = Dataset()
    dataset.file_meta = _file_meta(tags)
    _fill_identity(dataset, tags)
    _fill_geometry(dataset, geometry)
    _fill_pixels(dataset, pixels)
    dataset.save_as(path, enforce_file_format=True)


def to_stored_values(image: NDArray[np.float32], *, peak: float) -> NDArray[np.uint16]:
    """Scales a rendered image to stored values.

    Args:
        image: signal, 1 for CSF on T2 or fat on T1.
        peak: stored value of signal 1.

    Returns:
        uint16, same shape, in [0, 4095].

    >>> to_stored_values(np.array([[0.0, 0.5, 99.0]], np.float32), peak=800).tolist()
    [[0, 400, 4095]]
    """
    return np.clip(np.rint(image * peak), 0, _MAX_STORED).astype(np.uint16)


def _file_meta(tags: SliceTags) -> FileMetaDataset:
    meta = FileMetaDataset()
    # The competition's files are declared as Enhanced MR although each has a single classic frame.
    meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    meta.MediaStorageSOPInstanceUID = _instance_uid(tags)
    meta.TransferSyntaxUID = RLELossless
    meta.ImplementationClassUID = _IMPLEMENTATION_UID
    return meta


def _instance_uid(tags: SliceTags) -> str:
    return f"{tags.study_id}.{tags.series_ordinal}.{tags.instance_number}"


def _fill_identity(dataset: Dataset, tags: SliceTags) -> None:
    dataset.SOPInstanceUID = _instance_uid(tags)
    dataset.ContentDate = "20240513"
    dataset.SeriesDescription = tags.weighting.value
    dataset.PatientID = tags.patient_id
    dataset.SliceThickness = tags.thickness_mm
    dataset.SpacingBetweenSlices = round(tags.spacing_mm, 4)
    dataset.PatientPosition = "HFS"
    dataset.StudyInstanceUID = tags.study_id
    dataset.SeriesInstanceUID = f"{tags.study_id}.{tags.series_id}"
    dataset.InstanceNumber = tags.instance_number
    # It differs between the series of a study although they share one patient space, as in the real data.
    dataset.FrameOfReferenceUID = f"{tags.study_id}.{tags.series_ordinal}"


def _fill_geometry(dataset: Dataset, geometry: SliceGeometry) -> None:
    dataset.ImagePositionPatient = [_decimal(value) for value in geometry.position]
    dataset.ImageOrientationPatient = [
        _decimal(value) for value in (*geometry.row_direction, *geometry.column_direction)
    ]
    dataset.SliceLocation = _decimal(float(geometry.normal @ np.asarray(geometry.position)))
    dataset.Rows = geometry.rows
    dataset.Columns = geometry.columns
    dataset.PixelSpacing = [_decimal(geometry.row_spacing_mm), _decimal(geometry.column_spacing_mm)]


def _decimal(value: float) -> str:
    """Formats a number as a DICOM decimal string of at most 16 characters."""
    return f"{value:.9f}"[:16]


def _fill_pixels(dataset: Dataset, pixels: NDArray[np.uint16]) -> None:
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = 16
    dataset.BitsStored = 12
    dataset.HighBit = 11
    dataset.PixelRepresentation = 0
    bright = max(2, int(np.percentile(pixels, 98)))
    dataset.WindowCenter = bright // 2
    dataset.WindowWidth = bright
    dataset.PixelData = encapsulate([_encode_rle(pixels)])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True


def _encode_rle(pixels: NDArray[np.uint16]) -> bytes:
    """Returns an RLE Lossless frame: a header of 64 bytes, then high and low bytes (PS3.5 annex G)."""
    segments = []
    for plane in (pixels >> 8, pixels & 255):
        # Each row is encoded separately, and a segment has an even length (PS3.5 section G.3.1).
        packed = b"".join(imagecodecs.packbits_encode(row.tobytes()) for row in plane.astype(np.uint8))
        segments.append(packed + b"\0" * (len(packed) % 2))
    header = np.zeros(16, "<u4")
    header[:3] = len(segments), header.nbytes, header.nbytes + len(segments[0])
    return header.tobytes() + b"".join(segments)
