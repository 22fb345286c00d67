"""Reads the DICOM files of one study into planes of slices.

A file that cannot be used becomes a `Reject` with a reason, and the rest goes on. Names of files and
InstanceNumber say nothing about order here: slices are arranged by geometry.
"""

import hashlib
import io
import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError

from lumbar_tf.imaging.codecs import decode_stored_values
from lumbar_tf.imaging.geometry import SliceGeometry
from lumbar_tf.imaging.series import SeriesHeader, is_sagittal, tell_plane
from lumbar_tf.imaging.study import Reject, RejectReason, Slice, Study, arrange_slices
from lumbar_tf.labels import Plane

__all__ = ["Reject", "RejectReason", "Slice", "Study", "list_files", "read_study"]

#: No MR slice comes near these; a header beyond them is refused before memory is taken for it.
MAX_FILE_BYTES = 1 << 30
MAX_PIXELS = 64 << 20

#: How far ImageOrientationPatient may be from two perpendicular unit vectors. Scanners write 6 or
#: more digits; 0.01 still accepts two-digit rounding.
_DIRECTION_TOLERANCE = 0.01


class _RejectedError(Exception):
    """This file is left out, for this reason."""

    def __init__(self, reason: RejectReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, eq=False)
class _File:
    """A file that was read: its slice and what its header says of series and patient."""

    image: Slice
    header: SeriesHeader
    patient_id: str


def read_study(
    folder: Path, series_planes: Mapping[str, Plane] | None = None, *, study_id: str | None = None
) -> Study:
    """Reads every DICOM file below a study's folder.

    Args:
        folder: the study, with files in it or in folders below it.
        series_planes: what a series table says, by series id: a folder's name or the
            SeriesInstanceUID. Its word wins over a header that contradicts it, with a note. Series
            that it does not name are told from their headers.
        study_id: the study's name; the folder's name by default.

    Returns:
        The study. Planes without any slice are absent.
    """
    study_id = folder.name if study_id is None else study_id
    table = dict(series_planes or {})
    files: list[_File] = []
    rejects: list[Reject] = []
    digests: list[str] = []
    for path in list_files(folder):
        series_id = path.parent.name if path.parent != folder else ""
        try:
            data = _read_bytes(path)
            digests.append(hashlib.sha256(data).hexdigest())
            with warnings.catch_warnings():
                # pydicom warns of odd values by printing them, and a value can identify a patient.
                warnings.simplefilter("ignore")
                files.append(_read_file(data, folder_name=path.parent.name, table=table))
        except _RejectedError as error:
            rejects.append(Reject(study_id, series_id, path.name, error.reason, str(error)))
    planes, notes = _assign_planes(study_id, files, table)
    return Study(
        study_id=study_id,
        patient_id=next((each.patient_id for each in files if each.patient_id), ""),
        planes=planes,
        rejects=(*rejects, *notes),
        source_digest=hashlib.sha256("".join(sorted(digests)).encode()).hexdigest(),
    )


def list_files(folder: Path) -> Iterator[Path]:
    """Yields the files below a folder in path order; hidden files, tables and links are left out."""
    for parent, folders, names in os.walk(folder, followlinks=False):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            if not name.startswith(".") and path.suffix.lower() != ".csv" and not path.is_symlink():
                yield path


def _read_bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise _RejectedError(RejectReason.TOO_LARGE, f"the file is larger than {MAX_FILE_BYTES} bytes")
        return path.read_bytes()
    except OSError as error:
        raise _RejectedError(RejectReason.UNREADABLE, f"cannot be read: {error.strerror}") from None


def _read_file(data: bytes, *, folder_name: str, table: Mapping[str, Plane]) -> _File:
    try:
        dataset = pydicom.dcmread(io.BytesIO(data))
    except InvalidDicomError:
        raise _RejectedError(RejectReason.NOT_DICOM, "not a DICOM file") from None
    except Exception as error:  # pydicom raises many kinds on damaged headers
        raise _RejectedError(RejectReason.UNREADABLE, f"damaged header ({type(error).__name__})") from None
    try:
        _check_image(dataset)
        geometry = _read_geometry(dataset)
        pixels = _read_pixels(dataset)
        uid = str(dataset.get("SeriesInstanceUID", ""))
        image = Slice(
            geometry=geometry,
            pixels=pixels,
            # The competition names a series by its folder, everybody else by its UID.
            series_id=folder_name if folder_name in table or not uid else uid,
            instance_number=int(dataset.get("InstanceNumber", None) or 0),
        )
        header = SeriesHeader(str(dataset.get("SeriesDescription", "")), _number(dataset, "EchoTime"))
        return _File(image, header, str(dataset.get("PatientID", "") or ""))
    except _RejectedError:
        raise
    except Exception as error:  # values are parsed when they are asked for, and may be anything
        raise _RejectedError(RejectReason.UNREADABLE, f"damaged header ({type(error).__name__})") from None


def _check_image(dataset: pydicom.Dataset) -> None:
    """Refuses what is no single grey image, from the header alone."""
    if "PixelData" not in dataset or "Rows" not in dataset or "Columns" not in dataset:
        raise _RejectedError(RejectReason.NO_PIXELS, "no pixel data")
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    if rows * columns > MAX_PIXELS:
        raise _RejectedError(RejectReason.TOO_LARGE, f"{rows} x {columns} is over {MAX_PIXELS} pixels")
    if int(dataset.get("NumberOfFrames", None) or 1) > 1:
        raise _RejectedError(RejectReason.MULTI_FRAME, f"{dataset.NumberOfFrames} frames in one file")
    kind = dataset.get("PhotometricInterpretation", "")
    if dataset.get("SamplesPerPixel", 1) != 1 or kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise _RejectedError(RejectReason.COLOUR, f"not a grey image ({kind or 'unnamed'})")


def _read_geometry(dataset: pydicom.Dataset) -> SliceGeometry:
    position = _numbers(dataset, "ImagePositionPatient", 3)
    orientation = _numbers(dataset, "ImageOrientationPatient", 6)
    row_spacing_mm, column_spacing_mm = _numbers(dataset, "PixelSpacing", 2)
    directions = np.array(orientation).reshape(2, 3)
    # Rows of an orthonormal pair times their transpose give the identity.
    if np.abs(directions @ directions.T - np.eye(2)).max() > _DIRECTION_TOLERANCE:
        message = "ImageOrientationPatient must hold two perpendicular unit vectors"
        raise _RejectedError(RejectReason.BAD_GEOMETRY, message)
    if min(row_spacing_mm, column_spacing_mm) <= 0:
        message = f"PixelSpacing must be positive. Received: {row_spacing_mm} x {column_spacing_mm}"
        raise _RejectedError(RejectReason.BAD_GEOMETRY, message)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    row_direction, column_direction = directions.tolist()
    return SliceGeometry(
        position=(position[0], position[1], position[2]),
        row_direction=tuple(row_direction),
        column_direction=tuple(column_direction),
        row_spacing_mm=row_spacing_mm,
        column_spacing_mm=column_spacing_mm,
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
    )


def _read_pixels(dataset: pydicom.Dataset) -> np.ndarray:
    """Returns float32 [rows, columns]: MONOCHROME1 turned round, then slope and intercept, each once."""
    slope, intercept = _number(dataset, "RescaleSlope", 1.0), _number(dataset, "RescaleIntercept", 0.0)
    if slope is None or intercept is None or slope == 0:
        raise _RejectedError(RejectReason.BAD_RESCALE, "RescaleSlope and RescaleIntercept must be finite")
    try:
        stored = decode_stored_values(dataset)
    except Exception as error:  # decoders raise many kinds
        raise _RejectedError(
            RejectReason.UNDECODABLE, f"cannot be decoded ({type(error).__name__})"
        ) from None
    if stored.shape != (dataset.Rows, dataset.Columns):
        raise _RejectedError(RejectReason.UNDECODABLE, f"decoded to the shape {stored.shape}")
    pixels = stored.astype(np.float32)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        # Over the full range of BitsStored, so that the slices of a series stay comparable.
        is_signed = int(dataset.PixelRepresentation) == 1
        pixels = np.float32(-1 if is_signed else 2 ** int(dataset.BitsStored) - 1) - pixels
    if (slope, intercept) != (1.0, 0.0):
        with np.errstate(over="ignore", invalid="ignore"):
            pixels = pixels * np.float32(slope) + np.float32(intercept)
        if not np.isfinite(pixels).all():
            raise _RejectedError(RejectReason.BAD_RESCALE, "rescaled values are beyond float32")
    return pixels


def _number(dataset: pydicom.Dataset, keyword: str, default: float | None = None) -> float | None:
    """Returns a finite number, the default where it is absent, None where it is no finite number."""
    value = dataset.get(keyword, None)
    if value is None or value == "":
        return default
    return float(value) if math.isfinite(float(value)) else None


def _numbers(dataset: pydicom.Dataset, keyword: str, count: int) -> list[float]:
    try:
        values = [float(each) for each in dataset.get(keyword, None) or ()]
    except (TypeError, ValueError):
        values = []
    if len(values) != count or not all(map(math.isfinite, values)):
        raise _RejectedError(RejectReason.BAD_GEOMETRY, f"{keyword} must hold {count} finite numbers")
    return values


def _assign_planes(
    study_id: str, files: Sequence[_File], table: Mapping[str, Plane]
) -> tuple[dict[Plane, tuple[Slice, ...]], list[Reject]]:
    """Sorts files into planes, a whole series at a time."""
    by_series: dict[str, list[_File]] = {}
    for each in files:
        by_series.setdefault(each.image.series_id, []).append(each)
    slices: dict[Plane, list[Slice]] = {}
    notes: list[Reject] = []
    for series_id, members in sorted(by_series.items()):
        told = tell_plane(members[0].image.geometry, members[0].header)
        plane = table.get(series_id, told)
        if plane is None:
            message = "neither a table nor the headers tell a plane that is graded here"
            notes.append(Reject(study_id, series_id, "", RejectReason.UNKNOWN_PLANE, message))
            continue
        if told not in (None, plane) or is_sagittal(members[0].image.geometry) is not plane.is_sagittal:
            message = f"the table says {plane.value}, the headers disagree; the table's word is taken"
            notes.append(Reject(study_id, series_id, "", RejectReason.PLANE_CONTRADICTION, message))
        slices.setdefault(plane, []).extend(each.image for each in members)
    planes = {
        plane: tuple(image for group in arrange_slices(slices[plane]) for image in group.slices)
        for plane in Plane
        if plane in slices
    }
    return planes, notes
