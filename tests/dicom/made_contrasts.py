"""Series of several contrasts as four vendors store them, classic and Enhanced, with their right answers.

Each group of images has pixels of its own, so that a test can tell which group is graded. File names,
InstanceNumbers and the order of frames are drawn at random: they must not influence the answer.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage

from lumbar_tf.labels import Plane
from tests.dicom.made_files import SAGITTAL
from tests.dicom.made_sources import AXIAL

VENDORS = {"siemens": "SIEMENS", "philips": "Philips", "ge": "GE MEDICAL SYSTEMS", "canon": "CANON_MEC"}
STUDY = "1.2.826.0.1.3680043.10.1475.15"
NUM_SLICES = 3
_SIDE = 8
_GAP_MM = 5.0

#: ImageType of each vendor by Dixon part, from the third value on, and suffix or prefix of the description.
_DIXON_TYPES = {
    "siemens": {"in": ["M", "IN_PHASE"], "opp": ["M", "OPP_PHASE"], "W": ["M", "WATER"], "F": ["M", "FAT"]},
    "philips": {"in": ["IP", "IP"], "opp": ["OP", "OP"], "W": ["W", "W"], "F": ["F", "F"]},
    "ge": {
        "in": ["DIXON", "IN_PHASE"],
        "opp": ["DIXON", "OUT_PHASE"],
        "W": ["DIXON", "WATER"],
        "F": ["DIXON", "FAT"],
    },
    "canon": {"in": ["IN_PHASE"], "opp": ["OUT_PHASE"], "W": ["WATER"], "F": ["FAT"]},
}
_GE_PREFIX = {"in": "InPhase: ", "opp": "OutPhase: ", "W": "WATER: ", "F": "FAT: "}
_COMPONENTS = {"M": "MAGNITUDE", "P": "PHASE", "R": "REAL", "I": "IMAGINARY"}


@dataclass(frozen=True)
class Group:
    """Images of one contrast.

    Attributes:
        is_graded: right answer.
        component: M, P, R or I.
        dixon: in, opp, W, F, or "" for an image without the method.
        series: number of the series that the images belong to.
        tags: further attributes.
    """

    is_graded: bool = False
    component: str = "M"
    dixon: str = ""
    series: int = 1
    tags: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ContrastCase:
    """A study of one or several series with several contrasts.

    Attributes:
        name: vendor, format and content.
        vendor: key of `VENDORS`.
        is_enhanced: whether the images are frames of Enhanced files.
        plane: plane of the graded group.
        description: SeriesDescription.
        groups: groups of images, all at the same places.
    """

    name: str
    vendor: str
    is_enhanced: bool
    plane: Plane
    description: str
    groups: tuple[Group, ...]

    def answer(self) -> dict[Plane, set[tuple[float, int]]]:
        """Returns place and pixel value of every graded image, by plane."""
        graded = {
            (_GAP_MM * place, _value(number, place))
            for number, group in enumerate(self.groups)
            for place in range(NUM_SLICES)
            if group.is_graded
        }
        return {self.plane: graded} if graded else {}


def _spin_echo(echo_ms: float, repetition_ms: float = 3600.0, **more: Any) -> dict[str, Any]:
    return {"EchoTime": echo_ms, "RepetitionTime": repetition_ms, "ScanningSequence": "SE", **more}


_T2 = _spin_echo(105.0)
_T1 = _spin_echo(11.0, 550.0)
_DIXON = tuple(Group(dixon == "in", dixon=dixon, tags=_T2) for dixon in ("F", "opp", "W", "in"))
_DUAL_ECHO = (
    Group(tags=_spin_echo(15.0, EchoNumbers=1)),
    Group(True, tags=_spin_echo(105.0, EchoNumbers=2)),
)

#: Groups by content: (plane, description, groups).
CONTENTS: dict[str, tuple[Plane, str, tuple[Group, ...]]] = {
    "dual_echo": (Plane.SAGITTAL_T2, "T2 TSE SAG", _DUAL_ECHO),
    "dual_echo_axial": (Plane.AXIAL_T2, "T2 TSE TRA", _DUAL_ECHO),
    "dual_echo_named_so": (Plane.SAGITTAL_T2, "pd+t2_tse_sag", _DUAL_ECHO),
    "dual_echo_without_a_name": (Plane.AXIAL_T2, "", _DUAL_ECHO),
    "dual_echo_in_two_series": (
        Plane.SAGITTAL_T2,
        "T2 TSE SAG",
        (_DUAL_ECHO[0], replace(_DUAL_ECHO[1], series=2)),
    ),
    "two_late_echoes": (
        Plane.AXIAL_T2,
        "T2 TSE TRA",
        (Group(tags=_spin_echo(60.0)), Group(True, tags=_spin_echo(120.0))),
    ),
    "two_late_echoes_in_two_series": (
        Plane.AXIAL_T2,
        "T2 TSE TRA",
        (Group(tags=_spin_echo(60.0)), Group(True, series=2, tags=_spin_echo(120.0))),
    ),
    "three_echoes": (
        Plane.SAGITTAL_T2,
        "SAG T2",
        (
            Group(tags=_spin_echo(20.0, EchoNumbers=1)),
            Group(tags=_spin_echo(60.0, EchoNumbers=2)),
            Group(True, tags=_spin_echo(100.0, EchoNumbers=3)),
        ),
    ),
    "t1_with_a_late_echo": (
        Plane.SAGITTAL_T1,
        "SAG T1",
        (Group(tags=_spin_echo(80.0, 600.0)), Group(True, tags=_spin_echo(11.0, 600.0))),
    ),
    "phase": (Plane.SAGITTAL_T2, "T2 TSE SAG", (Group(component="P", tags=_T2), Group(True, tags=_T2))),
    "complex_axial": (
        Plane.AXIAL_T2,
        "T2 TSE TRA",
        tuple(Group(component == "M", component, tags=_T2) for component in "PIRM"),
    ),
    "phase_only": (Plane.SAGITTAL_T2, "T2 TSE SAG", (Group(component="P", tags=_T2),)),
    "dixon": (Plane.SAGITTAL_T2, "t2_tse_dixon_sag", _DIXON),
    "dixon_axial": (Plane.AXIAL_T2, "t2_tse_dixon_tra", _DIXON),
    "dixon_in_four_series": (
        Plane.SAGITTAL_T2,
        "t2_tse_dixon_sag",
        tuple(replace(group, series=number) for number, group in enumerate(_DIXON, start=1)),
    ),
    "dixon_without_in_phase": (
        Plane.SAGITTAL_T2,
        "t2_tse_dixon_sag",
        tuple(Group(dixon == "W", dixon=dixon, tags=_T2) for dixon in ("F", "opp", "W")),
    ),
    "dixon_t1": (
        Plane.SAGITTAL_T1,
        "t1_tse_dixon_sag",
        tuple(Group(dixon == "in", dixon=dixon, tags=_T1) for dixon in ("opp", "W", "in", "F")),
    ),
    "dixon_t1_water": (
        Plane.SAGITTAL_T1,
        "t1_tse_dixon_sag",
        tuple(Group(dixon=dixon, tags=_T1) for dixon in ("W", "F")),
    ),
    "dixon_fat": (
        Plane.AXIAL_T2,
        "t2_tse_dixon_tra",
        (Group(dixon="F", tags=_T2), Group(dixon="opp", tags=_T2)),
    ),
    "dixon_phase_images": (
        Plane.SAGITTAL_T2,
        "t2_tse_dixon_sag",
        (Group(component="P", dixon="in", tags=_T2), *_DIXON),
    ),
    "dual_echo_with_phase": (
        Plane.SAGITTAL_T2,
        "T2 TSE SAG",
        (
            replace(_DUAL_ECHO[0], component="P"),
            replace(_DUAL_ECHO[1], component="P", is_graded=False),
            *_DUAL_ECHO,
        ),
    ),
    "diffusion": (
        Plane.AXIAL_T2,
        "T2 TRA",
        (
            Group(tags=_spin_echo(80.0, DiffusionBValue=0.0)),
            Group(tags=_spin_echo(80.0, DiffusionBValue=800.0)),
        ),
    ),
    "time_points": (
        Plane.SAGITTAL_T2,
        "T2 TSE SAG",
        tuple(
            Group(time == 2, tags={**_T2, "TemporalPositionIdentifier": time, "TemporalPositionIndex": time})
            for time in (4, 2, 3)
        ),
    ),
    "stir_beside_t2": (
        Plane.SAGITTAL_T2,
        "SAG",
        (Group(tags=_spin_echo(60.0, InversionTime=160.0)), Group(True, tags=_T2)),
    ),
}


def list_cases() -> Iterator[ContrastCase]:
    """Yields every content, stored by every vendor, classic and Enhanced."""
    for content, (plane, description, groups) in CONTENTS.items():
        for vendor in VENDORS:
            for is_enhanced in (False, True):
                name = f"{content}-{vendor}-{'enhanced' if is_enhanced else 'classic'}"
                yield ContrastCase(name, vendor, is_enhanced, plane, description, groups)


def write_case(folder: Path, case: ContrastCase, *, seed: int) -> Path:
    """Writes a case with random file names, InstanceNumbers and orders of frames."""
    rng = np.random.default_rng(seed)
    images = [(number, place) for number in range(len(case.groups)) for place in range(NUM_SLICES)]
    if case.is_enhanced:
        datasets = list(_enhanced_files(case, images, rng))
    else:
        datasets = [_classic_file(case, *image) for image in images]
    numbers = rng.permutation(len(datasets))
    for number, name in zip(numbers.tolist(), rng.permutation(len(datasets)).tolist(), strict=True):
        datasets[number].InstanceNumber = number + 1
        datasets[number].save_as(folder / f"{name:04d}.dcm", enforce_file_format=True)
    return folder


def _value(group: int, place: int) -> int:
    return 100 * (group + 1) + place


def _pixels(group: int, place: int) -> bytes:
    return np.full((_SIDE, _SIDE), _value(group, place), "<u2").tobytes()


def _base(case: ContrastCase, group: Group, sop_class: str, sop: str) -> Dataset:
    dataset = Dataset()
    dataset.ensure_file_meta()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{STUDY}.{sop}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY, f"{STUDY}.{group.series}"
    dataset.PatientID, dataset.Modality, dataset.Manufacturer = "p", "MR", VENDORS[case.vendor]
    dataset.SeriesDescription = _describe(case, group)
    dataset.Rows = dataset.Columns = _SIDE
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    return dataset


def _describe(case: ContrastCase, group: Group) -> str:
    """Returns the description: Siemens and GE name the Dixon part in it if each part is a series."""
    is_split = len({other.series for other in case.groups}) > 1
    if not group.dixon or not is_split:
        return case.description
    if case.vendor == "ge":
        return _GE_PREFIX[group.dixon] + case.description
    return f"{case.description}_{group.dixon}" if case.vendor == "siemens" else case.description


def _image_type(case: ContrastCase, group: Group) -> list[str]:
    if group.dixon:
        kind = "DERIVED" if case.vendor == "ge" else "ORIGINAL"
        letters = [] if group.component == "M" else [group.component]
        return [kind, "PRIMARY", *letters, *_DIXON_TYPES[case.vendor][group.dixon]]
    names = {
        "siemens": [group.component, "ND"],
        "philips": [
            "PHASE MAP" if group.component == "P" else f"{group.component}_SE",
            group.component,
            "SE",
        ],
        "ge": ["OTHER"],
        "canon": [group.component],
    }
    return ["ORIGINAL", "PRIMARY", *names[case.vendor]]


def _position(case: ContrastCase, place: int) -> list[float]:
    position = [-6.0, -8.0, 6.0]
    position[2 if case.plane is Plane.AXIAL_T2 else 0] = _GAP_MM * place
    return position


def _orientation(case: ContrastCase) -> list[float]:
    return list(AXIAL if case.plane is Plane.AXIAL_T2 else SAGITTAL)


def _classic_file(case: ContrastCase, number: int, place: int) -> Dataset:
    group = case.groups[number]
    dataset = _base(case, group, MRImageStorage, f"{group.series}.{number}.{place}")
    dataset.ImageType = _image_type(case, group)
    if case.vendor == "ge" and group.component != "M":
        block = dataset.private_block(0x0043, "GEMS_PARM_01", create=True)
        block.add_new(0x2F, "SS", "MPRI".index(group.component))
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = _position(case, place), _orientation(case)
    dataset.PixelSpacing = [1.0, 1.0]
    for keyword, value in group.tags.items():
        if keyword != "TemporalPositionIndex":
            setattr(dataset, keyword, value)
    dataset.PixelData = _pixels(number, place)
    return dataset


def _enhanced_files(
    case: ContrastCase, images: Sequence[tuple[int, int]], rng: np.random.Generator
) -> Iterator[Dataset]:
    """Yields a file for each series; Siemens writes one for each contrast of a series."""
    files: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for number, place in images:
        part = number if case.vendor == "siemens" else 0
        files.setdefault((case.groups[number].series, part), []).append((number, place))
    for (series, part), members in files.items():
        frames = [members[index] for index in rng.permutation(len(members)).tolist()]
        group = case.groups[frames[0][0]]
        dataset = _base(case, group, EnhancedMRImageStorage, f"{series}.{part}")
        # The top level belongs to no frame: Philips writes its first image there.
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "T2", "MIXED"]
        dataset.ComplexImageComponent = "MIXED"
        dataset.NumberOfFrames = len(frames)
        dataset.EchoPulseSequence = "SPIN"
        dataset.SharedFunctionalGroupsSequence = [
            _item(
                PlaneOrientationSequence=[_item(ImageOrientationPatient=_orientation(case))],
                PixelMeasuresSequence=[_item(PixelSpacing=[1.0, 1.0])],
            )
        ]
        dataset.PerFrameFunctionalGroupsSequence = [_frame_group(case, *frame) for frame in frames]
        dataset.PixelData = b"".join(_pixels(*frame) for frame in frames)
        yield dataset


def _frame_group(case: ContrastCase, number: int, place: int) -> Dataset:
    group, tags = case.groups[number], case.groups[number].tags
    content = _item(InStackPositionNumber=place + 1, StackID="1")
    if "TemporalPositionIndex" in tags:
        content.TemporalPositionIndex = tags["TemporalPositionIndex"]
    frame_type = ["ORIGINAL", "PRIMARY", "T2", "NONE"]
    if group.dixon:
        frame_type = ["DERIVED", "PRIMARY", *_DIXON_TYPES["ge"][group.dixon]]
    item = _item(
        FrameContentSequence=[content],
        PlanePositionSequence=[_item(ImagePositionPatient=_position(case, place))],
        MREchoSequence=[_item(EffectiveEchoTime=tags["EchoTime"])],
        MRTimingAndRelatedParametersSequence=[_item(RepetitionTime=tags["RepetitionTime"])],
        MRImageFrameTypeSequence=[
            _item(FrameType=frame_type, ComplexImageComponent=_COMPONENTS[group.component])
        ],
    )
    if "InversionTime" in tags:
        item.MRModifierSequence = [_item(InversionTimes=[tags["InversionTime"]], InversionRecovery="YES")]
    if "DiffusionBValue" in tags:
        item.MRDiffusionSequence = [_item(DiffusionBValue=tags["DiffusionBValue"])]
    return item


def _item(**values: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset
