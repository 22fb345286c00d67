"""Varied synthetic patients and scans: geometry, sides, signals and repeatability."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lumbar_tf.config import VarietyConfig, load_variety_config
from lumbar_tf.dicom.geometry import mirror_geometry, patient_to_pixel
from lumbar_tf.labels import FINDINGS, Condition, Finding, Level, Plane, Side
from lumbar_tf.synthetic.anatomy import Anatomy, make_anatomy, mirror_anatomy
from lumbar_tf.synthetic.cohort import CohortOptions, draw_study, landmark, nearest_slice, write_cohort
from lumbar_tf.synthetic.patch import CONTRAST, SyntheticContrast, Tissue
from lumbar_tf.synthetic.render import Acquisition, render_slice
from lumbar_tf.synthetic.severity import thresholds
from lumbar_tf.synthetic.tissue_signal import (
    RELAXATION,
    PulseSequence,
    draw_signals,
    spin_echo_signal,
)
from lumbar_tf.synthetic.variation import vary_anatomy
from lumbar_tf.synthetic.varied_protocol import plan_varied_series

CONFIGS = Path("configs/pretrained")
HARDER = load_variety_config(CONFIGS / "harder.yaml")
T2 = Acquisition(SyntheticContrast.T2, shading=0.0)


def healthy(seed: int, variety: VarietyConfig = HARDER) -> Anatomy:
    """Returns a varied patient without stenoses."""
    rng = np.random.default_rng(seed)
    return vary_anatomy(make_anatomy(thresholds()[:, 0] - 3, rng), variety.anatomy, rng)


def test_the_shipped_file_lists_the_defaults() -> None:
    assert load_variety_config(CONFIGS / "variety.yaml") == VarietyConfig()


def test_a_range_must_increase() -> None:
    with pytest.raises(ValueError, match=r"field_mm must be a range of positive numbers\. Received: 300"):
        VarietyConfig.model_validate({"acquisition": {"field_mm": [300, 200]}})


@pytest.mark.parametrize("seed", range(12))
def test_sides_and_levels_hold_in_any_varied_patient(seed: int) -> None:
    anatomy = healthy(seed)
    heights = []
    for level in Level:
        left, right, canal = (
            landmark(anatomy, Finding(condition, level))
            for condition in (
                Condition.LEFT_NEURAL_FORAMINAL_NARROWING,
                Condition.RIGHT_NEURAL_FORAMINAL_NARROWING,
                Condition.SPINAL_CANAL_STENOSIS,
            )
        )
        assert left[0] > canal[0] > right[0]
        heights.append(canal[2])
    assert heights == sorted(heights, reverse=True)


@pytest.mark.parametrize("seed", range(8))
def test_a_canal_point_lies_in_bright_csf_and_behind_the_disc(seed: int) -> None:
    """The pixels come from the painters, the point from `to_patient`: slips and bends must agree."""
    anatomy = replace(healthy(seed), roots=np.zeros((0, 2)), conus_s=-1000.0)
    plans = plan_varied_series(anatomy, HARDER, rng=np.random.default_rng(seed))
    plan = next(plan for plan in plans if plan.plane is Plane.AXIAL_T2)
    seen = 0
    for level in (Level.L2_L3, Level.L3_L4, Level.L4_L5):
        point = landmark(anatomy, Finding(Condition.SPINAL_CANAL_STENOSIS, level))
        geometry = min(
            (geometry for _, geometry in plan.slices),
            key=lambda geometry: abs(patient_to_pixel(geometry, point.tolist())[2]),
        )
        column, row, offset_mm = patient_to_pixel(geometry, point.tolist())
        if abs(offset_mm) > 2.5:
            continue
        seen += 1
        image = render_slice(anatomy, geometry, T2, rng=None)
        assert image[round(row), round(column)] > 0.8 * CONTRAST[SyntheticContrast.T2][Tissue.CSF]
    assert seen


@pytest.mark.parametrize("seed", [0, 5])
def test_the_mirrored_patient_through_the_mirrored_slice_is_the_same_picture(seed: int) -> None:
    study, _ = draw_study(CohortOptions(num_studies=9, seed=seed, variety=HARDER), 2)
    point = landmark(study.anatomy, Finding(Condition.LEFT_NEURAL_FORAMINAL_NARROWING, Level.L4_L5))
    for plane in (Plane.SAGITTAL_T1, Plane.AXIAL_T2):
        plan, _, _, geometry = nearest_slice(study, plane, point)
        acquisition = replace(plan.acquisition, wrap_share=0.0)  # the belly wraps from one side of an image
        image = render_slice(study.anatomy, geometry, acquisition, rng=None)
        mirrored = render_slice(
            mirror_anatomy(study.anatomy), mirror_geometry(geometry), acquisition, rng=None
        )
        assert np.median(np.abs(mirrored - image)) < 2e-3
        assert np.quantile(np.abs(mirrored - image), 0.99) < 0.05
        assert image.std() > 0.02


def test_a_mirrored_patient_has_left_where_right_was() -> None:
    anatomy = healthy(3)
    mirrored = mirror_anatomy(anatomy)
    assert anatomy.side_sign(Side.LEFT) == -mirrored.side_sign(Side.LEFT)
    for finding in FINDINGS:
        np.testing.assert_allclose(
            landmark(mirrored, finding.mirrored), landmark(anatomy, finding) * (-1, 1, 1), atol=1e-9
        )


def test_variety_changes_neither_severities_nor_their_grades() -> None:
    plain, _ = draw_study(CohortOptions(num_studies=3, seed=4), 1)
    varied, _ = draw_study(CohortOptions(num_studies=3, seed=4, variety=VarietyConfig()), 1)
    np.testing.assert_array_equal(varied.latent, plain.latent)
    both = (plain.labels >= 0) & (varied.labels >= 0)
    np.testing.assert_array_equal(varied.labels[both], plain.labels[both])
    for level in Level:
        assert varied.anatomy.segment(level).canal == plain.anatomy.segment(level).canal
        assert varied.anatomy.segment(level).foramina == plain.anatomy.segment(level).foramina


def test_a_finding_outside_the_images_has_neither_grade_nor_point(tmp_path: Path) -> None:
    variety = VarietyConfig.model_validate({"acquisition": {"field_mm": [90, 100], "sparse_rate": 1}})
    write_cohort(tmp_path, CohortOptions(num_studies=3, seed=2, variety=variety))
    grades = (tmp_path / "train.csv").read_text().splitlines()[1:]
    assert all(",," in row for row in grades)


def test_the_files_are_the_same_for_any_number_of_workers(tmp_path: Path) -> None:
    for workers in (1, 2):
        options = CohortOptions(num_studies=2, seed=6, workers=workers, variety=VarietyConfig())
        write_cohort(tmp_path / str(workers), options)
    first, second = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        for name in ("1", "2")
    )
    assert first == second


def test_spin_echo_signals_are_those_of_the_equation() -> None:
    """Muscle at 1.5 T, TR 500, TE 10: 0.8 (1 - exp(-500/856)) exp(-10/40) = 0.8 x 0.4424 x 0.7788."""
    signal = spin_echo_signal(RELAXATION[Tissue.MUSCLE], PulseSequence(500, 10), tesla_3=False)
    assert signal == pytest.approx(0.2756, abs=2e-4)
    fat = RELAXATION[Tissue.FAT]
    null_ms = float(np.log(2)) * fat.t1_ms[0]
    assert spin_echo_signal(fat, PulseSequence(60000, 50, ti_ms=null_ms), tesla_3=False) < 1e-6


def test_typical_contrasts_have_the_order_of_brightness_that_radiologists_know() -> None:
    contrast = VarietyConfig.model_validate(
        {"contrast": {"signal_sd": 0, "free_rate": 0, "fat_suppressed_rate": 0}}
    ).contrast
    rng = np.random.default_rng(0)
    for tesla_3 in (False, True):
        t1 = draw_signals(SyntheticContrast.T1, contrast, tesla_3=tesla_3, rng=rng)
        t2 = draw_signals(SyntheticContrast.T2, contrast, tesla_3=tesla_3, rng=rng)
        assert t1[Tissue.FAT] > t1[Tissue.MARROW] > t1[Tissue.MUSCLE] > t1[Tissue.CSF] > t1[Tissue.CORTEX]
        assert t2[Tissue.CSF] > t2[Tissue.FAT] > t2[Tissue.MARROW] > t2[Tissue.MUSCLE] > t2[Tissue.CORTEX]
        assert t2[Tissue.NUCLEUS] > 2 * t2[Tissue.DRY_NUCLEUS]
