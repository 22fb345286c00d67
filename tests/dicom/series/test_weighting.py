from dataclasses import replace
from typing import Any

import pytest

from lumbar_tf.dicom.series.header import SeriesHeader
from lumbar_tf.dicom.series.series_description_patterns import Weighting
from lumbar_tf.dicom.series.weighting import classify_timing, classify_weighting, is_fat_suppressed

#: TE, TR, TI in ms and the expected weighting: "Summary of parameters" of Westbrook and Talbot, MRI in
#: Practice, both ends of each range at 1.5 T and 3 T, and published lumbar protocols between them.
PROTOCOLS = [
    (8.0, 300.0, None, Weighting.T1),
    (30.0, 700.0, None, Weighting.T1),
    (15.0, 900.0, None, Weighting.T1),
    (20.0, 600.0, None, Weighting.T1),
    (70.0, 2000.0, None, Weighting.T2),
    (90.0, 4000.0, None, Weighting.T2),
    (120.0, 6000.0, None, Weighting.T2),
    (110.0, 1200.0, None, Weighting.T2),  # SPACE
    (60.0, 3000.0, 100.0, Weighting.T2),  # STIR at 1.5 T
    (60.0, 3000.0, 175.0, Weighting.T2),
    (35.0, 4000.0, 210.0, Weighting.T2),  # STIR at 3 T
    (20.0, 2000.0, 860.0, Weighting.T1),  # T1 FLAIR
    (25.0, 3500.0, 1238.0, Weighting.T1),
    (80.0, 9000.0, 2200.0, Weighting.OTHER),  # T2 FLAIR
    (20.0, 3000.0, None, Weighting.OTHER),  # proton density
    (35.0, 2200.0, None, Weighting.OTHER),
    (50.0, 2500.0, None, None),
    (10.0, 1500.0, None, None),
    (10.0, None, None, None),
    (100.0, None, None, Weighting.T2),
    (None, 500.0, None, None),
]


@pytest.mark.parametrize(("echo", "repetition", "inversion", "weighting"), PROTOCOLS)
def test_the_timing_determines_the_weighting_of_spin_echoes(
    echo: float | None, repetition: float | None, inversion: float | None, weighting: Weighting | None
) -> None:
    header = SeriesHeader(echo_time_ms=echo, repetition_time_ms=repetition, inversion_time_ms=inversion)
    assert classify_timing(header) is weighting
    assert classify_weighting(header) == (weighting, False)


@pytest.mark.parametrize(
    ("contrast", "weighting"), [("T1", Weighting.T1), ("STIR", Weighting.T2), ("UNKNOWN", None)]
)
def test_acquisition_contrast_is_used_if_the_timing_is_ambiguous(
    contrast: str, weighting: Weighting | None
) -> None:
    assert classify_timing(SeriesHeader(acquisition_contrast=contrast)) is weighting
    told = SeriesHeader(acquisition_contrast=contrast, echo_time_ms=100.0, repetition_time_ms=4000.0)
    assert classify_timing(told) is Weighting.T2


def test_the_description_overrides_the_timing_and_the_sequence_overrides_both() -> None:
    header = SeriesHeader(description="t2", echo_time_ms=10.0, repetition_time_ms=500.0)
    assert classify_weighting(header) == (Weighting.T2, True)
    gradient = SeriesHeader(description="t2", scanning_sequence=("GR",))
    assert classify_weighting(gradient) == (Weighting.OTHER, False)
    grase = SeriesHeader(description="t2", scanning_sequence=("SE", "GR"))
    assert classify_weighting(grase) == (Weighting.T2, False)


def test_the_protocol_name_is_used_if_the_description_has_no_weighting() -> None:
    assert classify_weighting(SeriesHeader(description="SAG", protocol="t2_tse"))[0] is Weighting.T2
    assert classify_weighting(SeriesHeader(description="t1", protocol="t2_tse"))[0] is Weighting.T1


def test_an_inversion_time_that_nulls_fat_is_fat_suppression() -> None:
    assert is_fat_suppressed(SeriesHeader(inversion_time_ms=150.0))
    assert not is_fat_suppressed(SeriesHeader(inversion_time_ms=850.0))
    assert not is_fat_suppressed(SeriesHeader(description="t2_tse"))


T2_TIMING = {"echo_time_ms": 100.0, "repetition_time_ms": 4000.0}
T1_TIMING = {"echo_time_ms": 11.0, "repetition_time_ms": 600.0}

#: Attributes that exclude a graded spin echo, whatever the description.
OTHER_PHYSICS: dict[str, dict[str, Any]] = {
    "philips_diffusion": {**T2_TIMING, "scanning_sequence": ("SE",), "b_value": 800.0},
    "siemens_resolve": {**T2_TIMING, "sequence_name": "*re_b1000"},
    "siemens_echo_planar": {**T2_TIMING, "sequence_name": "*ep_b800"},
    "ge_echo_planar": {**T2_TIMING, "sequence_name": "epi2"},
    "t1_gradient_echo_3d": {
        "echo_time_ms": 3.1,
        "repetition_time_ms": 6.8,
        "flip_angle_degrees": 9.0,
        "scanning_sequence": ("SE",),
    },
    "prepared_gradient_echo": {
        "echo_time_ms": 5.5,
        "repetition_time_ms": 2300.0,
        "inversion_time_ms": 900.0,
        "flip_angle_degrees": 9.0,
    },
    "short_repetition": {"echo_time_ms": 10.0, "repetition_time_ms": 30.0},
    "short_echo": {"echo_time_ms": 2.3, "repetition_time_ms": 500.0},
    "t2_star": {"echo_time_ms": 22.0, "repetition_time_ms": 600.0, "flip_angle_degrees": 30.0},
    "gradient_name": {**T1_TIMING, "sequence_name": "*fl2d1"},
    "ge_gradient_name": {**T1_TIMING, "sequence_name": "fgre"},
    "steady_state": {"echo_time_ms": 6.0, "repetition_time_ms": 250.0, "sequence_name": "ci3d"},
    "myelography": {"echo_time_ms": 740.0, "repetition_time_ms": 8000.0},
    "flair": {"echo_time_ms": 120.0, "repetition_time_ms": 9000.0, "inversion_time_ms": 2500.0},
    "flair_without_inversion_time": {
        "echo_time_ms": 120.0,
        "repetition_time_ms": 9000.0,
        "scanning_sequence": ("SE", "IR"),
    },
    "fluid_attenuated": {**T2_TIMING, "acquisition_contrast": "FLUID_ATTENUATED"},
    "time_of_flight": {**T1_TIMING, "image_type": ("ORIGINAL", "PRIMARY", "TIME_OF_FLIGHT")},
}


@pytest.mark.parametrize("name", OTHER_PHYSICS)
@pytest.mark.parametrize("description", ["", "T2 SAG", "T1 SAG", "SAG STIR"])
def test_physics_exclude_what_is_no_graded_spin_echo(name: str, description: str) -> None:
    header = SeriesHeader(description=description, **OTHER_PHYSICS[name])
    expected = Weighting.OTHER
    if name == "flair_without_inversion_time" and "STIR" in description:
        expected = Weighting.T2  # an inversion pulse for fat
    assert classify_weighting(header)[0] is expected


@pytest.mark.parametrize(
    ("weighting", "values"),
    [
        (Weighting.T1, {**T1_TIMING, "flip_angle_degrees": 90.0, "scanning_sequence": ("SE",)}),
        (Weighting.T1, {**T1_TIMING, "flip_angle_degrees": 150.0, "sequence_name": "*tse2d1_3"}),
        (Weighting.T1, {"echo_time_ms": 8.0, "repetition_time_ms": 350.0, "sequence_name": "se2d1"}),
        (Weighting.T1, {"echo_time_ms": 24.0, "repetition_time_ms": 2200.0, "inversion_time_ms": 860.0}),
        (Weighting.T2, {**T2_TIMING, "flip_angle_degrees": 160.0, "sequence_name": "*tse2d1_17"}),
        (Weighting.T2, {**T2_TIMING, "flip_angle_degrees": 90.0, "sequence_name": "frfse-xl"}),
        (Weighting.T2, {**T2_TIMING, "sequence_name": "*spcr_282"}),
        (Weighting.T2, {**T2_TIMING, "sequence_name": "*h2d1_205"}),
        (Weighting.T2, {**T2_TIMING, "flip_angle_degrees": 40.0, "scanning_sequence": ("SE",)}),
        (Weighting.T2, {"echo_time_ms": 200.0, "repetition_time_ms": 1500.0}),
        (Weighting.T2, {**T2_TIMING, "b_value": 0.0}),
        (Weighting.T2, {"echo_time_ms": 60.0, "repetition_time_ms": 6000.0, "inversion_time_ms": 160.0}),
        (
            Weighting.T2,
            {
                "echo_time_ms": 70.0,
                "repetition_time_ms": 6000.0,
                "scanning_sequence": ("SE", "IR"),
                "is_fat_suppressed": True,
            },
        ),
    ],
)
def test_physics_of_graded_spin_echoes_exclude_nothing(weighting: Weighting, values: dict[str, Any]) -> None:
    for description in ("", weighting.value):
        assert classify_weighting(SeriesHeader(description=description, **values)) == (weighting, False)


@pytest.mark.parametrize("description", ["SAG FLAIR", "t2_tirm_sag_dark-fluid", "T1 FLAIR"])
def test_a_named_flair_with_a_long_echo_is_not_graded(description: str) -> None:
    assert classify_weighting(SeriesHeader(description=description, **T2_TIMING))[0] is Weighting.OTHER
    short = SeriesHeader(description="SAG T1 FLAIR", echo_time_ms=22.0, repetition_time_ms=2200.0)
    assert classify_weighting(short)[0] is Weighting.T1


@pytest.mark.parametrize("description", ["T2 SAG", "t2_tse_sag", "pd+t2_tse_sag", "T2 DUAL ECHO", ""])
def test_the_first_echo_of_a_dual_echo_is_not_t2(description: str) -> None:
    first = SeriesHeader(description=description, echo_time_ms=15.0, repetition_time_ms=3600.0)
    assert classify_weighting(first) == (Weighting.OTHER, False)
    assert classify_weighting(replace(first, echo_time_ms=105.0)) == (Weighting.T2, False)
    for repetition_ms in (1500.0, None):
        assert classify_weighting(replace(first, repetition_time_ms=repetition_ms)) == (None, False)
    stir = replace(first, description="STIR", echo_time_ms=30.0)
    assert classify_weighting(stir)[0] is Weighting.T2
