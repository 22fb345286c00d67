"""Configuration of the localizer and the graders of a plane."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lumbar_tf.config.fields import Config, Count, Fraction, Positive
from lumbar_tf.config.training import TrainingConfig
from lumbar_tf.labels import Family, Plane

#: Centre of axial crops; see `GraderConfig`.
Anchor = Literal["level", "subarticular"]


class CropConfig(Config):
    """Crops around landmarks.

    Attributes:
        side_mm: edge length in patient space.
        side_px: edge length of the network's input, in pixels.
        num_slices: slices around the landmark, odd; those that do not exist are masked.
        max_distance_mm: a landmark farther than this from the nearest slice plane has no crop (axial series
            often omit levels).
        max_offset_mm: neighbouring slices farther than this from the landmark are masked, so that where a
            series lacks slices a crop shows neither the other side's foramen nor another disc.
        mirror_right: mirror crops of the right side, so that a grader needs to learn one side only.
    """

    side_mm: Positive
    side_px: Annotated[int, Field(ge=16, le=512)]
    num_slices: Annotated[int, Field(ge=1, le=31)]
    max_distance_mm: Positive = 10.0
    max_offset_mm: Positive = 20.0
    mirror_right: bool = True

    @model_validator(mode="after")
    def _slices_are_odd(self) -> "CropConfig":
        if self.num_slices % 2 == 0:
            raise ValueError(f"num_slices must be odd. Received: {self.num_slices}.")
        return self


class LocalizerConfig(Config):
    """Network that locates the level points of a sagittal plane or the subarticular points of the axial one.

    Attributes:
        backbone: encoder, a name in `lumbar_tf.models.backbones.BACKBONES`.
        side_mm: edge length of the searched field of view around the image centre; on axial slices, around
            each level point of the sagittal localizers.
        side_px: edge length of the network's input, in pixels.
        covers_image: use the whole image (its longest edge) as field of view instead of `side_mm`: no level
            is cut off, and a wrong pixel spacing does not change the input.
        supersample: factor of the finer resolution that is averaged to avoid aliasing.
        num_slices: number of slices, spaced evenly in the largest stack; for axial slices the ones around
            each level point, an odd number.
        max_distance_mm: axial only: a level point farther than this from the nearest slice is not searched.
        jitter: axial only: training level points are moved by this multiple of the sagittal localizer's
            measured error.
        decoder_channels: number of channels of the decoder.
        sigma_mm: standard deviation of the target around the true point.
        init_from: run whose localizer provides the initial weights, or a file of weights; see
            `lumbar_tf.training.warm_start`.
        training: its fitting.
    """

    backbone: str
    side_mm: Positive = 320.0
    side_px: Annotated[int, Field(ge=32, le=512, multiple_of=32)] = 128
    covers_image: bool = False
    supersample: Annotated[int, Field(ge=1, le=4)] = 2
    num_slices: Annotated[int, Field(ge=1, le=63)] = 13
    max_distance_mm: Positive = 10.0
    jitter: Annotated[float, Field(ge=0, le=5)] = 1.0
    decoder_channels: Count = 32
    sigma_mm: Positive = 5.0
    init_from: str | None = None
    training: TrainingConfig


class LabelNoiseConfig(Config):
    """Exclusion of training labels that the members of an earlier run disagree with.

    Attributes:
        threshold: labels are excluded if 1 - p(label) is at least this, where p is the mean out-of-fold
            probability.
        oof: pattern of the earlier run's out-of-fold tables, such as `before/*/*/oof.csv`.
    """

    threshold: Annotated[float, Field(gt=0, le=1)]
    oof: str


class GraderConfig(Config):
    """Networks that grade crops.

    Attributes:
        backbones: names in `lumbar_tf.models.backbones.BACKBONES`; each is a member of the ensemble.
        targets: families of findings that the plane grades.
        auxiliary: families that are learned as auxiliary tasks only.
        auxiliary_weight: weight of their loss terms; the weight of targets is 1.
        crop: input of the network.
        anchor: centre of axial crops: the `level` point of the sagittal localizers, or the `subarticular`
            point of each side from the axial localizer.
        jitter: training landmarks are moved by this multiple of the localizer's measured error.
        channels: number of input channels of the backbone: 3 repeats the grey crop, 1 sums the first kernel
            of initial weights over its channels.
        pooling: combination of a crop's slices: `attention` weights, the `mean`, or a `recurrent` network
            over the slices in order.
        level_context: add the features of neighbouring levels before grading.
        dropout: rate before the heads.
        loss: `weighted` is the metric's weighted cross-entropy of each family, `metric` adds its any-severe
            term, `ordinal` penalises a wrong grade by its distance.
        two_step_epochs: number of epochs that fit only the heads with the weights 1, 2, 4, after
            `training.epochs` without class weights; 0 uses the weights from the start.
        init_from: run whose members provide the initial weights, or a file of weights; see
            `lumbar_tf.training.warm_start`.
        label_noise: None trains on all labels; `docs/training.md` has the limits of excluding labels.
        training: their fitting.
    """

    backbones: Annotated[tuple[str, ...], Field(min_length=1)]
    targets: Annotated[tuple[Family, ...], Field(min_length=1)]
    auxiliary: tuple[Family, ...] = ()
    auxiliary_weight: Annotated[float, Field(gt=0, le=1)] = 0.3
    crop: CropConfig
    anchor: Anchor = "level"
    jitter: Annotated[float, Field(ge=0, le=5)] = 1.0
    channels: Literal[1, 3] = 3
    pooling: Literal["attention", "mean", "recurrent"] = "attention"
    level_context: bool = False
    dropout: Fraction = 0.2
    loss: Literal["weighted", "metric", "ordinal"] = "weighted"
    two_step_epochs: Annotated[int, Field(ge=0)] = 0
    init_from: str | None = None
    label_noise: LabelNoiseConfig | None = None
    training: TrainingConfig

    @model_validator(mode="after")
    def _auxiliary_families_are_no_targets(self) -> "GraderConfig":
        both = [family.value for family in self.auxiliary if family in self.targets]
        if both or len(set(self.auxiliary)) < len(self.auxiliary):
            raise ValueError(
                "auxiliary must name other families than targets, each once. "
                f"Received: {[family.value for family in self.auxiliary]}."
            )
        return self


class PlaneConfig(Config):
    """Training of a plane.

    Attributes:
        plane: the plane.
        seed: seed of weights, shuffling and augmentation.
        mixed_precision: bfloat16 or float16 on a device that has it; `off` elsewhere.
        localizer: None if the points come from other planes: axial T2 can use the sagittal points, or have a
            localizer that finds the subarticular points around them.
        grader: the graders.
    """

    plane: Plane
    seed: Annotated[int, Field(ge=0, le=2_000_000)] = 0
    mixed_precision: Literal["auto", "off"] = "auto"
    localizer: LocalizerConfig | None = None
    grader: GraderConfig

    @model_validator(mode="after")
    def _planes_have_what_they_locate_with(self) -> "PlaneConfig":
        if self.plane.is_sagittal and self.localizer is None:
            raise ValueError(f"localizer is required for the plane {self.plane.value}.")
        is_located = not self.plane.is_sagittal and self.localizer is not None
        if self.grader.anchor == "subarticular" and not is_located:
            raise ValueError(
                "grader.anchor=subarticular needs the plane axial_t2 with a localizer. "
                f"Received: {self.plane.value}{'' if self.plane.is_sagittal else ' without one'}."
            )
        return self

    @model_validator(mode="after")
    def _an_axial_field_lies_around_its_point(self) -> "PlaneConfig":
        if self.plane.is_sagittal or self.localizer is None:
            return self
        localizer = self.localizer
        size_px = localizer.side_px * localizer.supersample
        if (
            localizer.covers_image
            or localizer.num_slices % 2 == 0
            or localizer.num_slices > 31
            or size_px > 512
        ):
            raise ValueError(
                "The localizer of axial_t2 takes an odd num_slices up to 31, no covers_image, and up to 512 "
                f"for side_px x supersample. Received: num_slices {localizer.num_slices}, covers_image "
                f"{localizer.covers_image}, {localizer.side_px} x {localizer.supersample}."
            )
        return self
