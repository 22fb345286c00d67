"""Frames of MR image files: identity, pixel storage and geometry.

A classic file is one frame whose geometry is at the top level. An Enhanced file has many frames with their
geometry in the per-frame or shared functional groups (PS3.3 section C.7.6.16). The competition's files are
Enhanced according to their file meta information, but classic in their dataset; the dataset decides.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pydicom import uid
from pydicom.dataset import Dataset

from lumbar_tf.dicom.files.code_streams import JP2_SIGNATURE, PixelLayout
from lumbar_tf.dicom.files.codecs import CODECS, NATIVE_SYNTAXES
from lumbar_tf.dicom.files.fragments import ByteRanges, find_encapsulated_frames, find_native_frames
from lumbar_tf.dicom.files.headers import ParsedFile, parse_file
from lumbar_tf.dicom.files.placement import read_geometry, read_rescale
from lumbar_tf.dicom.files.tolerant_reading import read_behind_pixels
from lumbar_tf.dicom.files.values import find_value, read_integer, read_uid, read_value
from lumbar_tf.dicom.geometry import SliceGeometry
from lumbar_tf.dicom.reasons import RejectedError, RejectReason
from lumbar_tf.dicom.study import ImageOrigin, read_optional_text

__all__ = ["Frame", "ImageFile", "find_value", "open_image"]

#: A frame of 8,192 x 8,192; MR has up to 1,024 x 1,024. A decoder needs up to 12 bytes per pixel, here 768
#: MiB.
MAX_PIXELS = 64 << 20
#: Maximum number of frames per file; dynamic series have a few thousand.
MAX_FRAMES = 1 << 16

_MR_IMAGE_CLASSES = frozenset(
    (
        uid.MRImageStorage,
        uid.EnhancedMRImageStorage,
        uid.EnhancedMRColorImageStorage,
        uid.LegacyConvertedEnhancedMRImageStorage,
    )
)
#: Secondary Capture Image Storage and its four multi-frame classes (PS3.4 section B.5).
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_SECONDARY_MODALITIES = frozenset(("OT", "SC"))
_INTEGER_PIXELS = 0x0010
#: ImageType of United Imaging's grids: the images are described by a private sequence, like Siemens' mosaics.
_UIH_GRID = "VFRAME"
_STANDARD_ROOT = "1.2.840.10008."
#: Elements that decide which image a file is, whose it is, where it lies and what its pixels are: groups of
#: acquisition, relationship and image, and SOPInstanceUID, ImageType, PatientID.
_DECISIVE_GROUPS = frozenset((0x0018, 0x0020, 0x0028))
_DECISIVE_TAGS = frozenset((0x00080008, 0x00080018, 0x00100020))


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame of a file.

    Attributes:
        index: index in the file, from 0.
        geometry: position of the pixels, LPS mm.
        instance_number: InstanceNumber, 0 if absent; in a multi-frame file the frame number, from 1.
        slope: RescaleSlope, 1 if absent.
        intercept: RescaleIntercept, 0 if absent.
    """

    index: int
    geometry: SliceGeometry
    instance_number: int
    slope: float
    intercept: float


@dataclass(frozen=True, eq=False)
class ImageFile:
    """A file with a valid header, whose frames can be decoded one at a time.

    Attributes:
        dataset: elements before the pixel data, without `file_meta`.
        study_uid: StudyInstanceUID, "" if absent.
        series_uid: SeriesInstanceUID, "" if absent.
        sop_uid: SOPInstanceUID, "" if absent.
        patient_id: PatientID, "" if absent. It must not be written anywhere.
        origin: UIDs of the image, for results that refer to it.
        frames: at least one.
        data: the complete file.
        syntax: the transfer syntax UID.
        layout: pixel storage.
        body: bytes that contain the pixel data: `data`, or the inflated dataset.
        pixel_ranges: byte ranges of each frame in `body`.
        is_big_endian: whether the pixels are stored in big-endian 16-bit words; 8-bit pixels are then swapped
            in pairs.
        notes: deviations from the standard that do not change the image.
    """

    dataset: Dataset
    study_uid: str
    series_uid: str
    sop_uid: str
    patient_id: str
    origin: ImageOrigin
    frames: tuple[Frame, ...]
    data: bytes
    syntax: str
    layout: PixelLayout
    body: bytes
    pixel_ranges: tuple[ByteRanges, ...]
    is_big_endian: bool = False
    notes: tuple[str, ...] = ()


def open_image(data: bytes) -> ImageFile:
    """Reads the header of an MR image and finds its frames, without decoding any.

    Args:
        data: the whole file.

    Raises:
        RejectedError: the file is not a grey-scale MR image, or is damaged.
    """
    file = parse_file(data)
    try:
        return _open(file, data)
    except RejectedError:
        raise
    except Exception as error:  # pydicom parses values on access, and a damaged value may raise anything
        message = f"damaged value in the header ({type(error).__name__})"
        raise RejectedError(RejectReason.DAMAGED_HEADER, message) from None


def _open(file: ParsedFile, data: bytes) -> ImageFile:
    dataset = file.dataset
    _check_kind(file)
    _check_decisive_elements(file)
    layout = _read_layout(dataset)
    num_frames = _read_frame_count(dataset)
    ranges = _find_frames(file, layout, num_frames)
    return ImageFile(
        dataset=dataset,
        study_uid=read_uid(dataset, "StudyInstanceUID"),
        series_uid=read_uid(dataset, "SeriesInstanceUID"),
        sop_uid=read_uid(dataset, "SOPInstanceUID"),
        patient_id=str(read_value(dataset, "PatientID") or ""),
        origin=_read_origin(file),
        frames=tuple(_read_frame(dataset, layout, index, num_frames) for index in range(num_frames)),
        data=data,
        syntax=file.syntax,
        layout=layout,
        body=file.body,
        pixel_ranges=ranges,
        is_big_endian=_is_big_endian(file),
        notes=tuple(_find_deviations(file, layout, ranges)),
    )


def _read_origin(file: ParsedFile) -> ImageOrigin:
    sop_class = read_optional_text(file.dataset, "SOPClassUID")
    return ImageOrigin(
        sop_class_uid=sop_class or read_optional_text(file.meta, "MediaStorageSOPClassUID"),
        sop_instance_uid=read_optional_text(file.dataset, "SOPInstanceUID"),
        series_uid=read_optional_text(file.dataset, "SeriesInstanceUID"),
        frame_of_reference_uid=read_optional_text(file.dataset, "FrameOfReferenceUID"),
    )


def _check_kind(file: ParsedFile) -> None:
    """Rejects files other than grey-scale MR images."""
    dataset = file.dataset
    # The competition's files have their SOP class in the file meta information only.
    meta_class = str(read_value(file.meta, "MediaStorageSOPClassUID") or "")
    sop_class = str(read_value(dataset, "SOPClassUID") or meta_class)
    modality = str(read_value(dataset, "Modality") or "")
    if meta_class == uid.MediaStorageDirectoryStorage or "DirectoryRecordSequence" in dataset:
        raise RejectedError(RejectReason.DICOMDIR, "a DICOMDIR, an index of other files")
    if file.pixels is None:
        _reject_without_pixels(dataset, sop_class)
    if _UIH_GRID in (read_value(dataset, "ImageType") or ()):
        raise RejectedError(RejectReason.DERIVED, "a grid of several images in one frame (VFRAME)")
    if f"{sop_class}.".startswith(f"{_SECONDARY_CAPTURE}.") or modality in _SECONDARY_MODALITIES:
        raise RejectedError(
            RejectReason.SECONDARY_CAPTURE, "a secondary capture rather than an acquired image"
        )
    if modality not in ("", "MR") or (not modality and _is_other_class(sop_class)):
        raise RejectedError(RejectReason.NOT_MR, "an image of another modality")
    kind = read_value(dataset, "PhotometricInterpretation")
    if not kind:
        raise RejectedError(RejectReason.DAMAGED_HEADER, "PhotometricInterpretation must be present")
    if read_integer(dataset, "SamplesPerPixel", 1) != 1 or kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise RejectedError(RejectReason.COLOUR, "not a grey-scale image")
    if file.syntax not in CODECS and file.syntax not in NATIVE_SYNTAXES:
        message = f"the transfer syntax {_display_uid(file.syntax)} is not supported"
        raise RejectedError(RejectReason.UNSUPPORTED_SYNTAX, message)


def _reject_without_pixels(dataset: Dataset, sop_class: str) -> None:
    has_other = "SpectroscopyData" in dataset or "PixelDataProviderURL" in dataset
    # Private classes, such as those in which Philips stores the parameters of a series.
    has_other |= bool(sop_class) and not sop_class.startswith(_STANDARD_ROOT)
    if ("Rows" in dataset or sop_class in _MR_IMAGE_CLASSES) and not has_other:
        raise RejectedError(RejectReason.TRUNCATED, "the file ends before its pixel data")
    raise RejectedError(RejectReason.NO_PIXELS, "no pixel data")


def _is_other_class(sop_class: str) -> bool:
    return sop_class.startswith("1.2.840.10008.5.1.4.1.1.") and sop_class not in _MR_IMAGE_CLASSES


def _display_uid(value: str) -> str:
    return value if re.fullmatch(r"[0-9.]{1,64}", value) else "with a damaged UID"


def _read_layout(dataset: Dataset) -> PixelLayout:
    rows, columns = read_integer(dataset, "Rows"), read_integer(dataset, "Columns")
    allocated = read_integer(dataset, "BitsAllocated")
    stored = read_integer(dataset, "BitsStored", allocated)
    high = read_integer(dataset, "HighBit", stored - 1)
    sign = read_integer(dataset, "PixelRepresentation")
    if rows < 1 or columns < 1:
        message = f"Rows and Columns must be at least 1. Received: {rows} x {columns}"
        raise RejectedError(RejectReason.DAMAGED_HEADER, message)
    if rows * columns > MAX_PIXELS:
        message = f"a frame must have at most {MAX_PIXELS} pixels. Received: {rows} x {columns}"
        raise RejectedError(RejectReason.TOO_LARGE, message)
    if allocated not in (8, 16) or not 1 <= stored <= allocated or high != stored - 1 or sign not in (0, 1):
        message = (
            "pixels must have 8 or 16 bits, of which the lowest are used, signed or unsigned. Received: "
            f"allocated {allocated}, stored {stored}, high bit {high}, representation {sign}"
        )
        raise RejectedError(RejectReason.BAD_PIXEL_FORMAT, message)
    return PixelLayout(
        rows,
        columns,
        allocated,
        stored,
        sign == 1,
        read_value(dataset, "PhotometricInterpretation") == "MONOCHROME1",
    )


def _read_frame_count(dataset: Dataset) -> int:
    count = read_integer(dataset, "NumberOfFrames", 1)
    if not 1 <= count <= MAX_FRAMES:
        message = f"NumberOfFrames must be 1 to {MAX_FRAMES}. Received: {count}"
        raise RejectedError(RejectReason.BAD_FRAMES, message)
    if count == 1:
        return count
    groups = read_value(dataset, "PerFrameFunctionalGroupsSequence") or ()
    if len(groups) != count:
        message = f"{count} frames must have one functional group each. Received: {len(groups)}"
        raise RejectedError(RejectReason.BAD_FRAMES, message)
    return count


def _find_frames(file: ParsedFile, layout: PixelLayout, num_frames: int) -> tuple[ByteRanges, ...]:
    pixels = file.pixels
    if pixels is None or pixels.element != _INTEGER_PIXELS:
        raise RejectedError(
            RejectReason.BAD_PIXEL_FORMAT, "pixels must be integers. Received: floating point"
        )
    if file.syntax in NATIVE_SYNTAXES:
        return find_native_frames(file.body, pixels, layout, num_frames)
    offsets = read_value(file.dataset, "ExtendedOffsetTable") or b""
    return find_encapsulated_frames(file.body, pixels, num_frames, offsets)


def _check_decisive_elements(file: ParsedFile) -> None:
    """Rejects a file that has a decisive element twice with different values, or behind its pixel data.

    Readers do not agree on the value of such elements.
    """
    repeated = [tag for tag in file.contradictory_tags if _is_decisive(tag)]
    if repeated:
        message = f"element {_display_tag(min(repeated))} must not be there twice with different values"
        raise RejectedError(RejectReason.DAMAGED_HEADER, message)
    behind = [tag for tag in read_behind_pixels(file).keys() if _is_decisive(tag)]  # noqa: SIM118 - a Dataset's
    if behind:
        message = f"element {_display_tag(min(behind))} must not be behind the pixel data"
        raise RejectedError(RejectReason.DAMAGED_HEADER, message)


def _is_decisive(tag: int) -> bool:
    return tag >> 16 in _DECISIVE_GROUPS or tag in _DECISIVE_TAGS


def _display_tag(tag: int) -> str:
    return f"{tag >> 16:04X},{tag & 0xFFFF:04X}"


def _find_deviations(file: ParsedFile, layout: PixelLayout, ranges: tuple[ByteRanges, ...]) -> Iterator[str]:
    """Yields the deviations from the standard that do not change the image."""
    start, stop = ranges[0][0]
    if file.body.startswith(JP2_SIGNATURE, start, stop):
        yield "the JPEG 2000 code stream is wrapped in a JP2 file"
    if file.pixels is not None and file.pixels.length is not None:
        surplus = file.pixels.length - len(ranges) * layout.num_bytes
        if surplus > 1:
            yield f"{surplus} blank bytes follow the last pixel"
    for tag in sorted(file.contradictory_tags):
        yield f"element {_display_tag(tag)} is there twice with different values; the last one is used"


def _is_big_endian(file: ParsedFile) -> bool:
    """Returns whether the pixels are in big-endian words: OB has no byte order (PS3.5 section 8.1.1)."""
    has_words = file.pixels is not None and file.pixels.vr != "OB"
    return has_words and file.syntax == uid.ExplicitVRBigEndian


def _read_frame(dataset: Dataset, layout: PixelLayout, index: int, num_frames: int) -> Frame:
    in_groups = num_frames > 1
    slope, intercept = read_rescale(dataset, index, in_groups=in_groups)
    geometry = read_geometry(dataset, layout, index, in_groups=in_groups)
    number = index + 1 if in_groups else read_integer(dataset, "InstanceNumber", 0)
    return Frame(index, geometry, number, slope, intercept)
