import pytest

from lumbar_tf.dicom.geometry import SliceGeometry
from lumbar_tf.dicom.reasons import RejectReason
from lumbar_tf.dicom.series.classification import SeriesCandidate, classify_series
from lumbar_tf.dicom.series.header import SeriesHeader
from lumbar_tf.labels import Plane

AXIAL = [
    SliceGeometry((-90, -90, 4.0 * place), (1, 0, 0), (0, 1, 0), 0.6, 0.6, 300, 300) for place in range(8)
]


def _decide(description: str = "T2 TRA", *image_type: str) -> Plane | RejectReason | None:
    header = SeriesHeader(
        description=description, image_type=image_type, echo_time_ms=100.0, repetition_time_ms=4000.0
    )
    candidate = SeriesCandidate("1", header, AXIAL)
    decision = classify_series(candidate, [candidate])
    return decision.plane or decision.reason


@pytest.mark.parametrize(
    "value",
    # Defined terms of PS3.3 C.8.3.1.1.1 and C.8.13.1.1.1, and the vendors' own.
    [
        "DENSITY MAP",
        "DIFFUSION MAP",
        "IMAGE ADDITION",
        "MODULUS SUBTRACT",
        "MPR",
        "PHASE MAP",
        "PHASE SUBTRACT",
    ]
    + ["PROJECTION IMAGE", "T1 MAP", "T2 MAP", "VELOCITY MAP", "METABOLITE_MAP", "PROTON_DENSITY_MAP"]
    + [
        "T2_STAR_MAP",
        "ADC_MAP",
        "FAT_FRACTION",
        "FF",
        "MEAN",
        "STD_DEVIATION",
        "COLFA",
        "TENSOR_B0",
        "CSA_MPR",
    ]
    + ["CSA_REPORT", "MOSAIC", "RCBV", "SNRMAP", "R2_MAP", "WATER_FRACTION", "SPECTROSCOPY"],
)
def test_maps_and_other_computed_images_are_derived(value: str) -> None:
    assert _decide("T2 TRA", "DERIVED", "PRIMARY", value) is RejectReason.DERIVED
    assert _decide("T2 TRA", "ORIGINAL", "PRIMARY", "M", value) is RejectReason.DERIVED


@pytest.mark.parametrize(
    "values",
    [
        ("M", "ND"),
        ("M", "NORM", "DIS2D"),
        ("M_SE", "M", "SE"),
        ("OTHER",),
        ("T2", "NONE"),
        ("M", "ND", "NORM"),
    ]
    + [("M", "FIL"), ("VOLUME", "NONE"), ("STIR", "NONE"), ("M", "DIS3D", "MFSPLIT"), ("T2", "FILTERED")],
)
def test_the_scanners_own_filters_are_not_derived(values: tuple[str, ...]) -> None:
    assert _decide("T2 TRA", "ORIGINAL", "PRIMARY", *values) is Plane.AXIAL_T2
    assert _decide("T2 TRA", "DERIVED", "PRIMARY", *values) is Plane.AXIAL_T2


@pytest.mark.parametrize(
    "description", ["T2 map", "T2MAP", "Metabolite T2", "dADC", "ADC_b50_800", "T2 maps"]
)
def test_maps_are_recognized_by_name(description: str) -> None:
    assert _decide(description) is RejectReason.DERIVED


@pytest.mark.parametrize("description", ["DTIphase T2", "DWI_b800", "T2 b1000", "IVIM", "dwi2 tra"])
def test_diffusion_is_recognized_by_name(description: str) -> None:
    assert _decide(description) is RejectReason.UNKNOWN_WEIGHTING


def test_every_image_of_a_diffusion_series_is_excluded() -> None:
    images = [
        SeriesCandidate("1", SeriesHeader(echo_time_ms=80.0, b_value=b_value), AXIAL, contrast=f"b {b_value}")
        for b_value in (0.0, 800.0)
    ]
    for image in images:
        assert classify_series(image, images).reason is RejectReason.UNKNOWN_WEIGHTING
    assert classify_series(images[0], images[:1]).plane is Plane.AXIAL_T2
