"""Configuration of varied synthetic patients and scans."""

from typing import Annotated

from pydantic import Field, model_validator

from lumbar_tf.config.fields import Config, Fraction

_Degrees = Annotated[float, Field(ge=0, le=45)]
_Sd = Annotated[float, Field(ge=0, le=2)]
_Range = tuple[float, float]


class ContrastVariety(Config):
    """Variety of tissue signals; every series draws its own.

    Attributes:
        signal_sd: standard deviation of the logarithm of each tissue's signal around that of its relaxation
            times.
        free_rate: share of series whose tissues have `free_sd` instead: contrasts that no scanner makes.
        free_sd: see `free_rate`.
        fat_suppressed_rate: share of T2 series with suppressed fat (half of them STIR), of T1 series a fifth
            of it.
        tesla_3_rate: share of patients at 3 T instead of 1.5 T.
    """

    signal_sd: _Sd = 0.15
    free_rate: Fraction = 0.2
    free_sd: _Sd = 0.6
    fat_suppressed_rate: Fraction = 0.2
    tesla_3_rate: Fraction = 0.5


class AnatomyVariety(Config):
    """Variety of the spine and its surroundings.

    Attributes:
        size_sd: standard deviation of body heights and depths, relative, of each vertebra by itself.
        lordosis_sd: standard deviation of the relative lordosis.
        tilt_sd_deg: standard deviation of the tilt of the whole spine in the sagittal plane.
        turn_sd_deg: standard deviation of the turn between neighbouring vertebrae; twice it in the sacrum.
        scoliosis_deg: largest Cobb angle.
        scoliosis_rate: share of patients with more than a slight scoliosis.
        slip_rate: share of discs with a slip of the upper body by 2 to `slip_mm`.
        slip_mm: see `slip_rate`.
        fracture_rate: share of bodies that have lost 15 to 50% of their height.
        collapse_rate: share of discs that have lost 30 to 65% of their height.
        transitional_rate: share of patients whose S1/S2 disc looks like a lumbar one.
        node_rate: share of endplates with a Schmorl node.
        lesion_rate: share of bodies with a haemangioma or a dark lesion.
        endplate_rate: share of discs with Modic changes of their endplates.
        laminectomy_rate: share of patients without spinous processes at one to three levels.
        metal_rate: share of patients with pedicle screws at one or two levels.
    """

    size_sd: _Sd = 0.05
    lordosis_sd: _Sd = 0.3
    tilt_sd_deg: _Degrees = 6.0
    turn_sd_deg: _Degrees = 2.5
    scoliosis_deg: _Degrees = 25.0
    scoliosis_rate: Fraction = 0.15
    slip_rate: Fraction = 0.05
    slip_mm: Annotated[float, Field(ge=2, le=15)] = 8.0
    fracture_rate: Fraction = 0.04
    collapse_rate: Fraction = 0.15
    transitional_rate: Fraction = 0.08
    node_rate: Fraction = 0.12
    lesion_rate: Fraction = 0.08
    endplate_rate: Fraction = 0.2
    laminectomy_rate: Fraction = 0.05
    metal_rate: Fraction = 0.03


class AcquisitionVariety(Config):
    """Variety of fields of view, stacks and artefacts.

    Attributes:
        field_mm: range of the sagittal field of view.
        sagittal_px: range of its matrix.
        centre_sd_mm: standard deviation of its centre, along and across the spine.
        crop_rate: share of series that are cut to a narrow rectangle along the spine.
        off_centre_sd_mm: standard deviation of the stack's centre from the spine, to the side.
        oblique_sd_deg: standard deviation of the stack's angles.
        sparse_rate: share of sagittal stacks of one to ten slices, with gaps.
        dense_rate: share of sagittal stacks of 17 to 30 slices; the others have 9 to 15.
        axial_spacing_mm: range of the axial pixel spacing.
        coil_depth_mm: range of the depth in which the coil's sensitivity halves.
        saturation_rate: share of series with a saturation band in front of the spine.
        blur_px: largest standard deviation of a Gaussian blur, in pixels.
        gamma: largest change of log2(gamma) of the stored picture.
        clip_rate: share of series whose brightest 0.5 to 8% of pixels are clipped, as in 8-bit pictures.
        ghost_rate: share of series with ghosts of motion.
        wrap_rate: share of series with the belly wrapped around.
        noise_sd: range of the noise, relative to the strongest tissue.
    """

    field_mm: _Range = (200.0, 390.0)
    sagittal_px: tuple[int, int] = (160, 240)
    centre_sd_mm: Annotated[float, Field(ge=0, le=60)] = 16.0
    crop_rate: Fraction = 0.35
    off_centre_sd_mm: Annotated[float, Field(ge=0, le=20)] = 3.0
    oblique_sd_deg: _Degrees = 3.0
    sparse_rate: Fraction = 0.35
    dense_rate: Fraction = 0.08
    axial_spacing_mm: _Range = (0.6, 1.1)
    coil_depth_mm: _Range = (35.0, 300.0)
    saturation_rate: Fraction = 0.4
    blur_px: Annotated[float, Field(ge=0, le=4)] = 0.8
    gamma: Annotated[float, Field(ge=0, le=2)] = 0.6
    clip_rate: Fraction = 0.5
    ghost_rate: Fraction = 0.15
    wrap_rate: Fraction = 0.05
    noise_sd: _Range = (0.005, 0.05)

    @model_validator(mode="after")
    def _ranges_increase(self) -> "AcquisitionVariety":
        for name in ("field_mm", "sagittal_px", "axial_spacing_mm", "coil_depth_mm", "noise_sd"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must be a range of positive numbers. Received: {low}, {high}.")
        return self


class VarietyConfig(Config):
    """Distributions of everything about a synthetic study that is unrelated to its severities.

    Attributes:
        contrast: tissue signals.
        anatomy: the spine and its surroundings.
        acquisition: fields of view, stacks and artefacts.
    """

    contrast: ContrastVariety = ContrastVariety()
    anatomy: AnatomyVariety = AnatomyVariety()
    acquisition: AcquisitionVariety = AcquisitionVariety()
