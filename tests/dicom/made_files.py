"""Small valid MR files as bytes, in every encoding."""

import io
import warnings
from collections.abc import Sequence
from typing import Any

import imagecodecs
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
DEFLATED = uid.DeflatedExplicitVRLittleEndian
NATIVE = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian, DEFLATED)
LOSSLESS = (
    uid.RLELossless,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
)
LOSSY = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless, uid.JPEG2000, uid.HTJ2K)
#: Allowed error of lossy codecs on `make_pixels`, in stored values of 12 bits (JPEG Baseline: of 8).
LOSSY_TOLERANCE = 40


def make_pixels(rows: int = 12, columns: int = 16, *, seed: int = 0, bits: int = 12) -> NDArray[np.uint16]:
    """Returns a smooth image with some noise, over most of the range of its bits."""
    row, column = np.mgrid[:rows, :columns]
    wave = 0.5 + 0.35 * np.sin(row / 3.0 + seed) * np.cos(column / 4.0)
    noise = np.random.default_rng(seed).normal(0, 0.01, wave.shape)
    return ((wave + noise).clip(0, 1) * (2**bits - 1)).astype(np.uint16)


def make_file(
    pixels: NDArray[Any] | None = None,
    *,
    syntax: str = uid.ExplicitVRLittleEndian,
    streams: Sequence[bytes] | None = None,
    **tags: Any,
) -> bytes:
    """Writes a file of one frame; keywords are DICOM keywords, None removes a tag.

    Args:
        pixels: stored values; uint8 makes 8 bits allocated, signed types PixelRepresentation 1.
        syntax: the transfer syntax, the pixels are coded for it.
        streams: code streams to take instead, one a frame.
        tags: what the header says besides.
    """
    pixels = make_pixels() if pixels is None else pixels
    dataset = _classic_header(pixels)
    for keyword, value in tags.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    frames = streams if streams is not None else [encode(pixels, syntax)]
    return _write(dataset, frames, syntax, uid.MRImageStorage)


def make_enhanced(
    frames: NDArray[Any] | None = None,
    *,
    syntax: str = uid.ExplicitVRLittleEndian,
    streams: Sequence[bytes] | None = None,
    fragments_per_frame: int = 1,
    has_offset_table: bool = True,
    **tags: Any,
) -> bytes:
    """Writes an Enhanced MR file: frames 4 mm apart along x, orientation and spacing shared."""
    if frames is None:
        frames = np.stack([make_pixels(seed=seed) for seed in range(3)])
    dataset = _classic_header(frames[0])
    dataset.SOPClassUID = uid.EnhancedMRImageStorage
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(dataset, keyword)
    dataset.NumberOfFrames = len(frames)
    dataset.SharedFunctionalGroupsSequence = [_shared_group()]
    dataset.PerFrameFunctionalGroupsSequence = [_frame_group(index) for index in range(len(frames))]
    for keyword, value in tags.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    streams = streams if streams is not None else [encode(frame, syntax) for frame in frames]
    return _write(
        dataset,
        streams,
        syntax,
        uid.EnhancedMRImageStorage,
        fragments_per_frame=fragments_per_frame,
        has_offset_table=has_offset_table,
    )


def encode(pixels: NDArray[Any], syntax: str, *, bits: int | None = None) -> bytes:
    """Encodes one frame; `bits` is the precision of the code stream, by default the number of bits in use."""
    if syntax in NATIVE:
        order = ">" if syntax == uid.ExplicitVRBigEndian else "<"
        return pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    if syntax == uid.RLELossless:
        return encode_rle(pixels)
    container = np.ascontiguousarray(pixels).view(f"u{pixels.dtype.itemsize}")
    if bits is None:
        bits = 8 if container.dtype.itemsize == 1 else 16 if pixels.dtype.kind == "i" else 12
    if syntax in (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit):
        return imagecodecs.jpeg8_encode(container, 95, bitspersample=bits)
    if syntax in (uid.JPEGLossless, uid.JPEGLosslessSV1):
        return imagecodecs.jpeg8_encode(container, lossless=True, bitspersample=bits)
    if syntax in (uid.JPEGLSLossless, uid.JPEGLSNearLossless):
        return imagecodecs.jpegls_encode(container, 2 if syntax == uid.JPEGLSNearLossless else 0)
    if syntax in (uid.HTJ2K, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL):
        return imagecodecs.htj2k_encode(pixels, reversible=True)
    is_lossy = syntax == uid.JPEG2000
    return imagecodecs.jpeg2k_encode(
        pixels,
        60 if is_lossy else 0,  # dB
        codecformat="j2k",
        reversible=not is_lossy,
        resolutions=2,
        bitspersample=None if pixels.dtype.kind == "i" else bits,
    )


def encode_rle(pixels: NDArray[Any]) -> bytes:
    """Encodes with pydicom's RLE encoder, which is independent of the tested decoder."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    _fill_layout(dataset, pixels)
    dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    dataset.SOPInstanceUID = "1.2.3"
    dataset.compress(uid.RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    return pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)


def _classic_header(pixels: NDArray[Any]) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = uid.MRImageStorage
    dataset.SOPInstanceUID = "1.2.3.4.5"
    dataset.Modality = "MR"
    dataset.SeriesDescription = "T2 sagittal"
    dataset.PatientID = "someone"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    dataset.InstanceNumber = 7
    dataset.ImagePositionPatient = [1.5, -20.0, 300.25]
    dataset.ImageOrientationPatient = list(SAGITTAL)
    dataset.PixelSpacing = [0.5, 0.75]
    _fill_layout(dataset, pixels)
    return dataset


def _fill_layout(dataset: Dataset, pixels: NDArray[Any]) -> None:
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    is_signed = pixels.dtype.kind == "i"
    dataset.BitsStored = 12 if pixels.dtype.itemsize == 2 and not is_signed else dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(is_signed)


def _shared_group() -> Dataset:
    group, plane, measures = Dataset(), Dataset(), Dataset()
    plane.ImageOrientationPatient = list(SAGITTAL)
    measures.PixelSpacing = [0.5, 0.75]
    group.PlaneOrientationSequence = [plane]
    group.PixelMeasuresSequence = [measures]
    return group


def _frame_group(index: int) -> Dataset:
    group, plane, rescale = Dataset(), Dataset(), Dataset()
    plane.ImagePositionPatient = [4.0 * index, -20.0, 300.25]
    rescale.RescaleSlope, rescale.RescaleIntercept = 1 + index, -10 * index
    group.PlanePositionSequence = [plane]
    group.PixelValueTransformationSequence = [rescale]
    return group


def _write(
    dataset: Dataset,
    streams: Sequence[bytes],
    syntax: str,
    sop_class: str,
    *,
    fragments_per_frame: int = 1,
    has_offset_table: bool = True,
) -> bytes:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.UID(syntax)
    dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", "1.2")
    if syntax in NATIVE:
        dataset.PixelData = b"".join(streams) + b"\0" * (sum(map(len, streams)) % 2)
    else:
        dataset.PixelData = encapsulate(
            list(streams), fragments_per_frame=fragments_per_frame, has_bot=has_offset_table
        )
    dataset["PixelData"].VR = "OB" if dataset.BitsAllocated == 8 or syntax not in NATIVE else "OW"
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # pydicom warns of intentional faults.
        warnings.simplefilter("ignore")
        pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()
