import pytest

from lumbar_tf.dicom.series.series_description_patterns import (
    Weighting,
    mentioned_weighting,
    mentions_contrast,
    mentions_derived,
    mentions_fat_suppression,
    mentions_localizer,
    mentions_lumbar,
)


@pytest.mark.parametrize(
    ("text", "weighting"),
    [
        # As the consoles of five makers and several hospitals spell them.
        ("t1_tse_sag", Weighting.T1),
        ("T1W_TSE SAG", Weighting.T1),
        ("Sag T1 FSE", Weighting.T1),
        ("SAGT1", Weighting.T1),
        ("sT1W_TSE", Weighting.T1),
        ("sSTIR_longTE", Weighting.T2),
        ("Sag T1 FLAIR", Weighting.T1),
        ("t1_tirm_sag_dark-fluid", Weighting.T1),
        ("t2_tse_sag_512", Weighting.T2),
        ("T2W_DRIVE", Weighting.T2),
        ("AX T2 FRFSE ANGLED", Weighting.T2),
        ("t2_spc_sag_p2_iso", Weighting.T2),
        ("Sag STIR", Weighting.T2),
        ("t2_tirm_sag", Weighting.T2),
        ("FSE T2 SAG flow comp", Weighting.T2),
        ("Sagittal T2/STIR", Weighting.T2),
        ("OSag T2 fs propeller", Weighting.T2),
        ("SAG PD FSE", Weighting.OTHER),
        ("pd+t2_tse_tra", Weighting.OTHER),
        ("PDW_SPAIR", Weighting.OTHER),
        ("ep2d_diff_b0_800", Weighting.OTHER),
        ("DWIBS", Weighting.OTHER),
        ("AX T2*", Weighting.OTHER),
        ("t2star_tra", Weighting.OTHER),
        ("t2_me2d_tra MEDIC", Weighting.OTHER),
        ("Ax MERGE", Weighting.OTHER),
        ("T2 mFFE", Weighting.OTHER),
        ("t1_vibe_fs_tra", Weighting.OTHER),
        ("T1_FLASH", Weighting.OTHER),
        ("AX FIESTA", Weighting.OTHER),
        ("t2_haste_myelo", Weighting.OTHER),
        ("MR MYELOGRAM T2", Weighting.OTHER),
        ("t2_tirm_tra_dark-fluid", Weighting.OTHER),
        ("T2 FLAIR", Weighting.OTHER),
        ("T1/T2 SAG", None),
        ("SAG", None),
        ("T12-L3 axial", None),
        ("", None),
    ],
)
def test_the_weighting_that_a_description_mentions(text: str, weighting: Weighting | None) -> None:
    assert mentioned_weighting(text) is weighting


@pytest.mark.parametrize(
    ("text", "is_localizer"),
    [
        ("localizer", True),
        ("LOC", True),
        ("3-pl T2* FGRE S", True),
        ("3-Plane Loc", True),
        ("SURVEY", True),
        ("AAScout", True),
        ("Scout_3Plane", True),
        ("Cal 8HRBRAIN Calibration", True),
        ("Asset cal", True),
        ("T2 sag counting", True),
        ("t2_tse_sag_3D plan", False),
        ("Sag T2 block L4", False),
        ("T2 local shim", False),
        ("Ax T2 FSE ASSET", False),
    ],
)
def test_localizers_are_recognized_by_name(text: str, is_localizer: bool) -> None:
    assert mentions_localizer(text) is is_localizer


@pytest.mark.parametrize(
    ("text", "is_derived"),
    [
        ("T2 SPACE MPR TRA", True),
        ("MIP", True),
        ("ADC (10^-6 mm2/s)", True),
        ("ep2d_diff_ADC", True),
        ("T1 post SUB", True),
        ("Screen Save", True),
        ("T2 Map", True),
        ("COMPOSED T2 SAG", True),
        ("t2_tse_sag", False),
        ("T1 subacute", False),
        ("T2 TSE FA 150", False),
    ],
)
def test_derived_images_are_recognized_by_name(text: str, is_derived: bool) -> None:
    assert mentions_derived(text) is is_derived


@pytest.mark.parametrize(
    ("text", "is_lumbar"),
    [
        ("LUMBAR SPINE", True),
        ("MR L-Spine wo", True),
        ("LSPINE", True),
        ("LSSPINE", True),
        ("L/S SPINE", True),
        ("MRT LWS nativ", True),
        ("IRM lombaire", True),
        ("RM columna lumbosacra", True),
        ("Thoracolumbar", True),
        ("TLSPINE", True),
        ("cervical and lumbar", True),
        ("T2 AX L4-S1", True),
        ("CSPINE", False),
        ("C-spine", False),
        ("HWS", False),
        ("T SPINE", False),
        ("thoracic", False),
        ("columna dorsal", False),
        ("BRAIN", False),
        ("HEAD", False),
        ("Knee L", False),
        ("HIP", False),
        ("SI joints", False),
        ("pelvis", False),
        ("SPINE", None),
        ("t2_tse_sag", None),
        ("SAG T2 SPAIR", None),
        ("", None),
    ],
)
def test_the_part_of_the_body_that_a_text_mentions(text: str, is_lumbar: bool | None) -> None:
    assert mentions_lumbar(text) is is_lumbar


@pytest.mark.parametrize(
    ("text", "is_contrast"),
    [
        ("SAG T1 POST", True),
        ("T1 +C", True),
        ("Sag T1 FS C+", True),
        ("t1_tse_sag_KM", True),
        ("T1 GAD", True),
        ("T1 with contrast", True),
        ("T1 WITHOUT CONTRAST", False),
        ("T1 W/O contrast", False),
        ("T1 pre contrast", False),
        ("T2 post-op", False),
        ("T1 posterior", False),
    ],
)
def test_contrast_agent_is_recognized_by_name(text: str, is_contrast: bool) -> None:
    assert mentions_contrast(text) is is_contrast


@pytest.mark.parametrize("text", ["T2 FS", "T1FS", "t2_tse_fs", "T2 FatSat", "SPAIR", "STIR", "T2 mDIXON"])
def test_fat_suppression_is_recognized_by_name(text: str) -> None:
    assert mentions_fat_suppression(text)
    assert not mentions_fat_suppression("T2 TSE")
