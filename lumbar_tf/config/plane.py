"""What the localizer and the graders of one plane are."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lumbar_tf.config.fields import Config, Count, Fraction, Positive
from lumbar_tf.config.training import TrainingConfig
from lumbar_tf.labels import Family, Plane

#: What axial crops are cut around; see `GraderConfig`.
Anchor = Literal["level", "subarticular"]


class CropConfig(Config):
    """What is cut around a landmark.

    Attributes:
        side_mm: edge length in patient space.
        side_px: edge length in pixels of what the network sees.
        num_slices: slices around the landmark, odd; those that do not exist are masked.
        max_distance_mm: a landmark farther than this from the nearest slice plane has no crop
            (an axial series often leaves levels out).
        mirror_right: the right side is turned to look left, so that a grader needs to learn one side only.
    """

    side_mm: Positive
    side_px: Annotated[int, Field(ge=16, le=512)]
    num_slices: Annotated[int, Field(ge=1, le=31)]
    max_distance_mm: Positive = 10.0
    mirror_right: bool = True

    @model_validator(mode="after")
    def _slices_are_odd(self) -> "CropConfig":
        if self.num_slices % 2 == 0:
            raise ValueError(f"num_slices must be odd. Received: {self.num_slices}.")
        return self


class LocalizerConfig(Config):
    """The network that finds a sagittal plane's level points, or the axial plane's subarticular points.

    Attributes:
        backbone: encoder, a name in `lumbar_tf.models.backbones.BACKBONES`.
        side_mm: edge of the field that is searched, around the image centre; on axial slices around each
            level point of the sagittal localizers.
        side_px: edge in pixels of what the network sees.
        covers_image: the field is each study's whole image (its longest edge) instead of `side_mm`: no
            level is cut off, and a wrong pixel spacing does not change what the network sees.
        supersample: the field is cut this much finer and averaged, against aliasing.
        num_slices: slices drawn evenly from the largest stack; of axial slices those around each level point,
            an odd number.
        max_distance_mm: axial alone: a level point farther than this from the nearest slice is not searched.
        jitter: axial alone: training level points are moved by this many times the sagittal localizer's
            measured error.
        decoder_channels: width of the decoder.
        sigma_mm: spread of the target around the true point.
        init_from: a run whose localizer's weights this starts from, or a file of weights; see
            `lumbar_tf.training.warm_start`.
        training: how it is fitted.
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
    """Which labels training leaves out: those that the members of a run before this one disagree with.

    Attributes:
        threshold: of 1 - p(label), p being the mean out-of-fold probability; as much or more is left out.
        oof: pattern of that run's out-of-fold tables, such as `before/*/*/oof.csv`.
    """

    threshold: Annotated[float, Field(gt=0, le=1)]
    oof: str


class GraderConfig(Config):
    """The networks that grade crops.

    Attributes:
        backbones: names in `lumbar_tf.models.backbones.BACKBONES`; each is one member.
        targets: which families of findings the plane grades.
        auxiliary: families that it learns to grade, too, and is never asked for.
        auxiliary_weight: of their terms in the loss, beside 1 for a target's.
        crop: what the network sees.
        anchor: what axial crops are cut around: the `level` point of the sagittal localizers, or each side's
            `subarticular` point of the axial one.
        jitter: training landmarks are moved by this many times the localizer's measured error.
        channels: of the backbone's input: 3 repeats the grey crop, 1 sums the first kernel of given weights.
        pooling: how a crop's slices become one: weighed by `attention`, by their `mean`, or by a `recurrent`
            network that reads them in order.
        level_context: let each level see its neighbours before it is graded.
        dropout: before the heads.
        loss: `weighted` is the metric's weighted cross-entropy of each family, `metric` adds its any-severe
            term, `ordinal` charges a wrong grade by how far it is off.
        two_step_epochs: after `training.epochs` without class weights, epochs that fit the heads alone with
            the weights 1, 2, 4; 0 fits everything with the weights from the start.
        init_from: a run whose members' weights these start from, or a file of weights; see
            `lumbar_tf.training.warm_start`.
        label_noise: None trains on all labels; see `docs/training.md` for what dropping them cannot promise.
        training: how they are fitted.
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
    def _a_family_is_asked_for_or_not(self) -> "GraderConfig":
        both = [family.value for family in self.auxiliary if family in self.targets]
        if both or len(set(self.auxiliary)) < len(self.auxiliary):
            raise ValueError(
                "auxiliary must name other families than targets, each once. "
                f"Received: {[family.value for family in self.auxiliary]}."
            )
        return self


class PlaneConfig(Config):
    """Everything that trains one plane.

    Attributes:
        plane: which plane.
        seed: of weights, shuffling and augmentation.
        mixed_precision: bfloat16 or float16 on a device that has it; `off` elsewhere.
        localizer: None where the points come from other planes alone: axial T2 can take the sagittal ones
            as they are, or have a localizer that finds the subarticular points around them.
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
        each = self.localizer
        size_px = each.side_px * each.supersample
        if each.covers_image or each.num_slices % 2 == 0 or each.num_slices > 31 or size_px > 512:
            raise ValueError(
                "The localizer of axial_t2 takes an odd num_slices up to 31, no covers_image, and up to 512 "
                f"for side_px x supersample. Received: num_slices {each.num_slices}, covers_image "
                f"{each.covers_image}, {each.side_px} x {each.supersample}."
            )
        return self
