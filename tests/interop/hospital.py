"""Synthetic export of a hospital: a disc as a PACS writes it, without tables.

Two examinations of one patient. The lumbar one has what a technologist leaves behind: a three-plane scout,
a sagittal T1 that only its timing tells, a sagittal T2 in one Enhanced file, STIR, T1 with contrast agent,
an oblique axial T2, an axial T1, a coronal, diffusion, a reformat and a screen shot. Files lie in nested
folders, have no endings, and name the patient in every way that a header can.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.fileset import FileSet
from pydicom.uid import (
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from lumbar_tf.dicom.geometry import SliceGeometry
from lumbar_tf.dicom.reasons import RejectReason
from lumbar_tf.labels import Plane
from lumbar_tf.synthetic import (
    Acquisition,
    Resolution,
    SyntheticContrast,
    draw_severity,
    make_anatomy,
    plan_series,
    render_slice,
)
from lumbar_tf.synthetic.dicom_writer import to_stored_values

#: Identifying values, which no output may contain.
IDENTITY = {
    "PatientName": "Musterfrau^Erika",
    "PatientID": "MRN-0815-4711",
    "PatientBirthDate": "19640812",
    "AccessionNumber": "ACC20240777",
    "InstitutionName": "Klinikum Beispielstadt",
    "ReferringPhysicianName": "Hausarzt^Hans",
    "StudyComments": "Frau Musterfrau klagt seit Mai",
}
_ROOT = "1.2.826.0.1.3680043.10.1475.99"
LUMBAR_STUDY = f"{_ROOT}.1"
CERVICAL_STUDY = f"{_ROOT}.2"
_PEAK = 900.0

Image = tuple[SliceGeometry, NDArray[np.uint16]]


@dataclass(frozen=True)
class HospitalExport:
    """Written files and their expected classification.

    Attributes:
        root: folder of the export.
        planes: expected plane of each series that is used, by SeriesInstanceUID.
        reasons: expected reason code of each MR series that is not used, by SeriesInstanceUID.
        num_slices: number of slices of each series.
        positions: ImagePositionPatient of the slices of each series, in the order of their numbers.
    """

    root: Path
    planes: dict[str, Plane]
    reasons: dict[str, RejectReason]
    num_slices: dict[str, int]
    positions: dict[str, list[tuple[float, float, float]]]


@dataclass(frozen=True, eq=False)
class _Series:
    """Series to write, with its expected plane or reason code."""

    images: Sequence[Image]
    outcome: Plane | RejectReason
    tags: dict[str, Any]
    study_uid: str = LUMBAR_STUDY
    is_enhanced: bool = False
    study_tags: dict[str, Any] = field(default_factory=dict)


def write_hospital_export(folder: Path) -> HospitalExport:
    """Writes the export into a new or empty folder."""
    export = HospitalExport(folder, {}, {}, {}, {})
    disc = FileSet()
    for number, series in enumerate(_plan(), start=1):
        uid = f"{series.study_uid}.{number}"
        outcomes: dict[str, Any] = export.planes if isinstance(series.outcome, Plane) else export.reasons
        outcomes[uid] = series.outcome
        export.num_slices[uid] = len(series.images)
        export.positions[uid] = [geometry.position for geometry, _ in series.images]
        for dataset in _write_series(series, uid, number):
            disc.add(dataset)
    disc.add(_screen_shot())
    folder.mkdir(parents=True, exist_ok=True)
    disc.write(folder)
    (folder / "README").write_text("Dieses Medium wurde für Erika Musterfrau erstellt.\n")
    (folder / "VIEWER").mkdir()
    (folder / "VIEWER" / "START.EXE").write_bytes(b"MZ" + bytes(300))
    (folder / "VIEWER" / "MUSTERFRAU_ERIKA.pdf").write_bytes(b"%PDF-1.4\n")
    return export


def _plan() -> list[_Series]:
    rng = np.random.default_rng(11)
    anatomy = make_anatomy(draw_severity(1, shift=0.0, rng=rng).latent[0], rng)
    plans = {plan.plane: plan for plan in plan_series(anatomy, Resolution.SMALL, rng=rng)}

    def render(geometries: Sequence[SliceGeometry], weighting: SyntheticContrast) -> list[Image]:
        acquisition = Acquisition(weighting)
        return [
            (geometry, to_stored_values(render_slice(anatomy, geometry, acquisition, rng=rng), peak=_PEAK))
            for geometry in geometries
        ]

    sagittal = [geometry for _, geometry in plans[Plane.SAGITTAL_T2].slices]
    axial = [geometry for _, geometry in plans[Plane.AXIAL_T2].slices]
    coronal = [_coronal(sagittal[len(sagittal) // 2], offset) for offset in (-8.0, 0.0, 8.0)]
    t1, t2 = render(sagittal, SyntheticContrast.T1), render(sagittal, SyntheticContrast.T2)
    axial_t2 = render(axial, SyntheticContrast.T2)
    coronal_t2 = render(coronal, SyntheticContrast.T2)
    scout = [t2[len(t2) // 2], axial_t2[len(axial_t2) // 2], coronal_t2[1]]
    spin_echo_t2 = _timing(105.0, 3600.0)
    return [
        _Series(scout, RejectReason.LOCALIZER, {"SeriesDescription": "3-pl T2* FGRE", **_timing(1.7, 6.0)}),
        # Only its timing identifies the contrast.
        _Series(t1, Plane.SAGITTAL_T1, {"SeriesDescription": "SAG", **_timing(9.8, 560.0)}),
        _Series(
            t2, Plane.SAGITTAL_T2, {"SeriesDescription": "T2W_TSE SAG", **spin_echo_t2}, is_enhanced=True
        ),
        _Series(
            t2,
            RejectReason.LESS_SUITABLE,
            {"SeriesDescription": "t2_tirm_sag", **_timing(45.0, 4200.0, InversionTime=160.0)},
        ),
        _Series(
            t1,
            RejectReason.LESS_SUITABLE,
            {"SeriesDescription": "t1_tse_sag", "ContrastBolusAgent": "Gadovist", **_timing(10.0, 600.0)},
        ),
        _Series(axial_t2, Plane.AXIAL_T2, {"SeriesDescription": "t2_tse_tra", **_timing(98.0, 4000.0)}),
        _Series(
            axial_t2[:4],
            RejectReason.UNKNOWN_WEIGHTING,
            {"SeriesDescription": "t1_tse_tra", **_timing(11.0, 620.0)},
        ),
        _Series(coronal_t2, RejectReason.UNKNOWN_PLANE, {"SeriesDescription": "t2_tse_cor", **spin_echo_t2}),
        _Series(
            axial_t2[:4],
            RejectReason.UNKNOWN_WEIGHTING,
            {
                "SeriesDescription": "ep2d_diff_b800",
                **_timing(80.0, 5000.0, ScanningSequence="EP"),
            },
        ),
        _Series(
            axial_t2[4:8],
            RejectReason.DERIVED,
            {
                "SeriesDescription": "t2_space_tra",
                "ImageType": ["DERIVED", "SECONDARY", "MPR"],
                **spin_echo_t2,
            },
        ),
        _Series(
            t2,
            RejectReason.NOT_LUMBAR,
            {"SeriesDescription": "t2_tse_sag", "BodyPartExamined": "CSPINE", **spin_echo_t2},
            study_uid=CERVICAL_STUDY,
            study_tags={"StudyDescription": "MRT HWS"},
        ),
    ]


def _timing(echo_ms: float, repetition_ms: float, **more: Any) -> dict[str, Any]:
    return {"EchoTime": echo_ms, "RepetitionTime": repetition_ms, "ScanningSequence": "SE", **more}


def _coronal(sagittal: SliceGeometry, offset_mm: float) -> SliceGeometry:
    """Returns a coronal slice through the middle of a sagittal one: columns to the left, rows to the feet."""
    size, spacing = 96, 2.5
    x, y, z = sagittal.centre
    half = (size - 1) / 2 * spacing
    return replace(
        sagittal,
        position=(x - half, y + offset_mm, z + half),
        row_direction=(1.0, 0.0, 0.0),
        column_direction=(0.0, 0.0, -1.0),
        row_spacing_mm=spacing,
        column_spacing_mm=spacing,
        rows=size,
        columns=size,
    )


def _write_series(series: _Series, uid: str, number: int) -> list[Dataset]:
    if series.is_enhanced:
        return [_enhanced(series, uid, number)]
    return [_classic(series, uid, number, index) for index in range(len(series.images))]


def _base(series: _Series, uid: str, number: int, instance: int, sop_class: str) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{uid}.{instance}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = series.study_uid, uid
    dataset.FrameOfReferenceUID = f"{series.study_uid}.100"
    dataset.SeriesNumber, dataset.InstanceNumber, dataset.Modality = number, instance, "MR"
    dataset.StudyID, dataset.StudyDate, dataset.StudyTime = "S1", "20240513", "101500"
    dataset.StudyDescription = "MRT LWS nativ und KM"
    dataset.Manufacturer, dataset.MagneticFieldStrength = "SIEMENS", 1.494
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
    private = dataset.private_block(0x0029, "HOUSE NOTES", create=True)
    private.add_new(0x01, "LO", "Erika M., Zimmer 12")
    for keyword, value in {**IDENTITY, **series.study_tags}.items():
        setattr(dataset, keyword, value)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    return dataset


def _classic(series: _Series, uid: str, number: int, index: int) -> Dataset:
    geometry, pixels = series.images[index]
    dataset = _base(series, uid, number, index + 1, MRImageStorage)
    for keyword, value in series.tags.items():
        setattr(dataset, keyword, value)
    dataset.ImagePositionPatient = _decimals(geometry.position)
    dataset.ImageOrientationPatient = _decimals((*geometry.row_direction, *geometry.column_direction))
    dataset.PixelSpacing = _decimals((geometry.row_spacing_mm, geometry.column_spacing_mm))
    dataset.SliceThickness = 4.0
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.PixelData = pixels.astype("<u2").tobytes()
    dataset.compress(RLELossless, generate_instance_uid=False)
    return dataset


def _enhanced(series: _Series, uid: str, number: int) -> Dataset:
    """Returns a multi-frame dataset with shared orientation, spacing and timing and per-frame positions."""
    geometry = series.images[0][0]
    dataset = _base(series, uid, number, 1, EnhancedMRImageStorage)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "T2", "NONE"]
    dataset.SeriesDescription = series.tags["SeriesDescription"]
    dataset.Manufacturer, dataset.MagneticFieldStrength = "Philips", 3.0
    dataset.NumberOfFrames = len(series.images)
    dataset.Rows, dataset.Columns = series.images[0][1].shape
    dataset.EchoPulseSequence, dataset.InversionRecovery, dataset.EchoPlanarPulseSequence = "SPIN", "NO", "NO"
    orientation = (*geometry.row_direction, *geometry.column_direction)
    spacing = (geometry.row_spacing_mm, geometry.column_spacing_mm)
    dataset.SharedFunctionalGroupsSequence = [
        _item(
            PlaneOrientationSequence=[_item(ImageOrientationPatient=_decimals(orientation))],
            PixelMeasuresSequence=[_item(PixelSpacing=_decimals(spacing), SliceThickness=4.0)],
            MRTimingAndRelatedParametersSequence=[_item(RepetitionTime=series.tags["RepetitionTime"])],
            MREchoSequence=[_item(EffectiveEchoTime=series.tags["EchoTime"])],
            MRImageFrameTypeSequence=[
                _item(
                    FrameType=["ORIGINAL", "PRIMARY", "T2", "NONE"],
                    ComplexImageComponent="MAGNITUDE",
                    AcquisitionContrast="T2",
                )
            ],
        )
    ]
    dataset.PerFrameFunctionalGroupsSequence = [
        _item(
            FrameContentSequence=[
                _item(StackID="1", InStackPositionNumber=place, DimensionIndexValues=[place])
            ],
            PlanePositionSequence=[_item(ImagePositionPatient=_decimals(image.position))],
        )
        for place, (image, _) in enumerate(series.images, start=1)
    ]
    dataset.PixelData = np.stack([pixels for _, pixels in series.images]).astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset


def _screen_shot() -> Dataset:
    """Returns a screen capture of a technologist, possibly with burned-in patient data."""
    dataset = _base(_Series([], RejectReason.SECONDARY_CAPTURE, {}), f"{LUMBAR_STUDY}.90", 90, 1, "")
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.Modality, dataset.ConversionType, dataset.BurnedInAnnotation = "OT", "WSD", "YES"
    dataset.ImageType = ["DERIVED", "SECONDARY", "SCREEN SAVE"]
    dataset.Rows = dataset.Columns = 32
    dataset.PixelData = bytes(32 * 32 * 2)
    return dataset


def _item(**values: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def _decimals(values: Sequence[float]) -> list[str]:
    """Returns Decimal Strings of at most 16 characters (PS3.5 section 6.2)."""
    return [f"{value:.9f}"[:16] for value in values]
