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
