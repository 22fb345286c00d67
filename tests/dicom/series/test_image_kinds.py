from typing import Any

import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from lumbar_tf.dicom.series.header import SeriesHeader, read_frame_headers, read_series_header
from lumbar_tf.dicom.series.image_kinds import Component, DixonPart, dixon_stem, is_diffusion_weighted


def _header(*, private: tuple[int, str, int, str, Any] | None = None, **values: Any) -> SeriesHeader:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    if private is not None:
        group, creator, element, vr, value = private
        dataset.private_block(group, creator, create=True).add_new(element, vr, value)
    return read_series_header(dataset)


@pytest.mark.parametrize(
    ("image_type", "component"),
    [
        # Siemens, Philips and Canon; as in their conformance statements.
        (["ORIGINAL", "PRIMARY", "M", "ND"], Component.MAGNITUDE),
        (["ORIGINAL", "PRIMARY", "P", "ND"], Component.PHASE),
        (["ORIGINAL", "PRIMARY", "R", "ND"], Component.REAL),
        (["ORIGINAL", "PRIMARY", "I", "ND"], Component.IMAGINARY),
        (["ORIGINAL", "PRIMARY", "M_SE", "M", "SE"], Component.MAGNITUDE),
        (["ORIGINAL", "PRIMARY", "M_IR", "M", "IR"], Component.MAGNITUDE),
        (["ORIGINAL", "PRIMARY", "R_IR", "R", "IR"], Component.REAL),
        (["ORIGINAL", "PRIMARY", "PHASE MAP", "P", "SE"], Component.PHASE),
        (["ORIGINAL", "PRIMARY", "VELOCITY MAP", "P", "PCA"], Component.PHASE),
        (["ORIGINAL", "PRIMARY", "OTHER"], Component.MAGNITUDE),
        (["ORIGINAL", "PRIMARY"], Component.MAGNITUDE),
        # Values 1 and 2 have other meanings.
        (["P", "R", "M"], Component.MAGNITUDE),
    ],
)
def test_the_component_follows_from_the_image_type(image_type: list[str], component: Component) -> None:
    assert _header(ImageType=image_type).component is component


@pytest.mark.parametrize("code", [0, 1, 2, 3, 7])
def test_ge_states_the_component_in_a_private_element(code: int) -> None:
    expected = {1: Component.PHASE, 2: Component.REAL, 3: Component.IMAGINARY}.get(code, Component.MAGNITUDE)
    original = ["ORIGINAL", "PRIMARY", "OTHER"]
    for vr, value in (("SS", code), ("UN", code.to_bytes(2, "little"))):
        header = _header(ImageType=original, private=(0x0043, "GEMS_PARM_01", 0x2F, vr, value))
        assert header.component is expected
    # The number belongs to the creator of the block: another vendor's element is no component.
    header = _header(ImageType=original, private=(0x0043, "SOMEBODY ELSE", 0x2F, "SS", code))
    assert header.component is Component.MAGNITUDE


@pytest.mark.parametrize("name", ["PHASE", "REAL", "IMAGINARY", "MAGNITUDE", "MIXED"])
def test_the_complex_image_component_is_used(name: str) -> None:
    header = _header(ImageType=["ORIGINAL", "PRIMARY", "T2", "NONE"], ComplexImageComponent=name)
    assert (header.component is Component.MAGNITUDE) == (name in ("MAGNITUDE", "MIXED"))


@pytest.mark.parametrize(
    ("description", "image_type", "part"),
    [
        ("t2_tse_dixon_sag_in", [], DixonPart.IN_PHASE),
        ("t2_tse_dixon_sag_opp", [], DixonPart.OPPOSED_PHASE),
        ("t2_tse_dixon_sag_W", [], DixonPart.WATER),
        ("t2_tse_dixon_sag_F_ND", [], DixonPart.FAT),
        ("WATER: Sag T2 IDEAL", [], DixonPart.WATER),
        ("FAT: Sag T2 IDEAL", [], DixonPart.FAT),
        ("InPhase: Ax T2 Flex", [], DixonPart.IN_PHASE),
        ("OutPhase: Ax T2 Flex", [], DixonPart.OPPOSED_PHASE),
        ("T2W_mDIXON W", [], DixonPart.WATER),
        ("Sag T2 in-phase", [], DixonPart.IN_PHASE),
        ("Sag T2 out of phase", [], DixonPart.OPPOSED_PHASE),
        ("T2W_mDIXON", ["W", "W"], DixonPart.WATER),
        ("T2W_mDIXON", ["F", "F"], DixonPart.FAT),
        ("T2W_mDIXON", ["IP", "IP"], DixonPart.IN_PHASE),
        ("T2W_mDIXON", ["OP", "OP"], DixonPart.OPPOSED_PHASE),
        ("t2_tse", ["DIXON", "OUT_PHASE"], DixonPart.OPPOSED_PHASE),
        ("t2_tse_dixon_sag_in", ["M", "ND", "FAT"], DixonPart.FAT),
        # Words that are no part of a family.
        ("t2_tse_dixon_sag", [], None),
        ("T2_W", [], None),
        ("t2_tse_sag_F", [], None),
        ("Sag T2 Fat Sat", [], None),
        ("T2 FS water excitation", [], None),
        ("check in", [], None),
        ("t2_tse_sag", ["M", "NORM"], None),
    ],
)
def test_the_dixon_part_follows_from_image_type_then_description(
    description: str, image_type: list[str], part: DixonPart | None
) -> None:
    header = _header(SeriesDescription=description, ImageType=["ORIGINAL", "PRIMARY", *image_type])
    assert header.dixon_part is part


def test_names_of_a_family_have_one_stem() -> None:
    names = ["t2_sag_in", "t2_sag_opp", "t2_sag_W", "t2_sag_F", "WATER: T2_SAG", "FAT: T2_SAG"]
    assert {dixon_stem(name)[0] for name in names} == {"t2_sag"}
    assert len({dixon_stem(name)[1] for name in names[:4]}) == 4


@pytest.mark.parametrize(
    ("values", "b_value"),
    [
        ({"DiffusionBValue": 800.0}, 800.0),
        ({"private": (0x0019, "SIEMENS MR HEADER", 0x0C, "IS", 1000)}, 1000.0),
        ({"private": (0x0043, "GEMS_PARM_01", 0x39, "IS", [1000000800, 8, 0, 0])}, 800.0),
        ({"private": (0x2001, "Philips Imaging DD 001", 0x03, "FL", 500.0)}, 500.0),
        ({"private": (0x0065, "Image Private Header", 0x09, "FD", 600.0)}, 600.0),
        ({"ImageComments": "b=1500(0.445,0.000,0.895)"}, 1500.0),
        ({"ImageComments": "b1 shim"}, None),
        ({"private": (0x2001, "Philips Imaging DD 001", 0x03, "UN", b"\x00\x00\xfa\x43")}, None),
        ({}, None),
    ],
)
def test_the_b_value_is_read_from_the_vendors_elements(values: dict[str, Any], b_value: float | None) -> None:
    header = _header(**values)
    assert header.b_value == b_value
    assert is_diffusion_weighted(header.b_value) is (b_value is not None)


def test_a_small_b_value_is_a_crusher() -> None:
    assert [is_diffusion_weighted(value) for value in (None, 0.0, 1.0, 50.0)] == [False, False, False, True]


def test_frames_have_their_own_attributes_before_those_of_the_file() -> None:
    def item(**values: Any) -> Dataset:
        dataset = Dataset()
        for keyword, value in values.items():
            setattr(dataset, keyword, value)
        return dataset

    def frame(echo_ms: float, component: str) -> Dataset:
        kind = item(FrameType=["ORIGINAL", "PRIMARY", "T2", "NONE"], ComplexImageComponent=component)
        return item(
            MREchoSequence=[item(EffectiveEchoTime=echo_ms)],
            MRImageFrameTypeSequence=[kind],
            FrameContentSequence=[item(TemporalPositionIndex=2)],
        )

    dataset = item(
        EchoTime=15.0,
        ImageType=["ORIGINAL", "PRIMARY", "P", "MIXED"],
        ComplexImageComponent="MIXED",
        PerFrameFunctionalGroupsSequence=[frame(15.0, "MAGNITUDE"), frame(105.0, "PHASE")],
        SharedFunctionalGroupsSequence=[
            item(MRTimingAndRelatedParametersSequence=[item(RepetitionTime=4000)])
        ],
    )
    first, second = read_frame_headers(dataset, 2)
    assert (first.echo_time_ms, second.echo_time_ms) == (15.0, 105.0)
    assert (first.component, second.component) == (Component.MAGNITUDE, Component.PHASE)
    assert {header.repetition_time_ms for header in (first, second)} == {4000.0}
    assert {header.temporal_position for header in (first, second)} == {2}


@pytest.mark.filterwarnings("ignore")
def test_damaged_and_excessive_values_count_as_absent() -> None:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 999"
    dataset[0x00204000] = RawDataElement(Tag(0x00204000), "LT", 4, b"\xff\xfe\xfd\xfc", 0, False, True)
    dataset[0x00430010] = RawDataElement(Tag(0x00430010), "LO", 4, b"\xff\xfe\xfd\xfc", 0, False, True)
    dataset[0x00189087] = RawDataElement(Tag(0x00189087), "FD", 3, b"abc", 0, False, True)
    dataset.SeriesDescription = "t2 " * 100_000
    dataset.ImageType = ["M"] * 1000
    header = read_series_header(dataset)
    assert (header.component, header.dixon_part, header.b_value) == (Component.MAGNITUDE, None, None)
    assert len(header.description) <= 1024 and len(header.image_type) <= 32
