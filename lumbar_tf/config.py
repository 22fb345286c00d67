"""Typed configuration: YAML in, frozen objects out.

A misspelt or mistyped field is refused with its path. Values can be overridden on the command
line (`--set grader.training.epochs=3`) and the resolved configuration is written beside every
result, so that a run says what made it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lumbar_tf.labels import Family, Plane

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]
#: What axial crops are cut around; see `GraderConfig`.
Anchor = Literal["level", "subarticular"]


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CropConfig(_Config):
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


class AugmentationConfig(_Config):
    """Random changes during training; zero switches one off.

    Geometric ones compose into the crop's one affine; the others act on the crop. Localizers take the
    geometric ones and those of intensity; the rest is for graders alone.

    Attributes:
        rotation_deg: uniform rotation in the slice plane.
        zoom: uniform relative change of scale.
        shift_mm: uniform in-plane shift of a whole study.
        brightness: uniform shift, as a fraction of the intensity range.
        contrast: uniform relative change of contrast.
        gamma: uniform change of log2(gamma).
        noise: largest standard deviation of additive noise.
        bias_field: largest logarithm of a smooth factor across a crop (0.5 is 0.6 to 1.6 times).
        blur_px: largest standard deviation of a Gaussian blur, in pixels of the crop.
        spike: probability, for each slice, of the stripes that a spike in k-space leaves.
        spike_strength: largest amplitude of the stripes, as a fraction of the intensity range.
        motion_ghost: probability, for each slice, of ghosts from periodic motion.
        motion_shift: largest amplitude of that motion, as a share of the crop's edge (0.02 of 50 mm: 1 mm).
        num_operations: of the changes of intensity and the occlusions that are switched on, each crop gets
            this many, chosen at random; 0 applies all.
        cutout: probability, for each crop, of blanking a rectangle.
        grid_mask: probability, for each crop, of blanking a grid of squares.
        drop_slice: probability of masking each slice but the central one.
        mixup: probability, for each crop, of being added to another study's of the same place.
        mixup_alpha: its share is Beta(alpha, alpha); a small alpha keeps one of the two nearly whole.
        cutmix: probability, for each crop, of taking a rectangle from another study's of the same place.
        cutmix_alpha: the same for the rectangle's share of the area.
    """

    rotation_deg: Annotated[float, Field(ge=0, le=90)] = 10.0
    zoom: Fraction = 0.1
    shift_mm: Annotated[float, Field(ge=0)] = 0.0
    brightness: Fraction = 0.1
    contrast: Fraction = 0.2
    gamma: Fraction = 0.3
    noise: Fraction = 0.03
    bias_field: Fraction = 0.0
    blur_px: Annotated[float, Field(ge=0, le=5)] = 0.0
    spike: Fraction = 0.0
    spike_strength: Fraction = 0.1
    motion_ghost: Fraction = 0.0
    motion_shift: Annotated[float, Field(ge=0, le=0.2)] = 0.02
    num_operations: Annotated[int, Field(ge=0)] = 0
    cutout: Fraction = 0.0
    grid_mask: Fraction = 0.0
    drop_slice: Fraction = 0.0
    mixup: Fraction = 0.0
    mixup_alpha: Annotated[float, Field(ge=0.1, le=10)] = 0.4
    cutmix: Fraction = 0.0
    cutmix_alpha: Annotated[float, Field(ge=0.1, le=10)] = 1.0

    @model_validator(mode="after")
    def _a_crop_is_mixed_once(self) -> "AugmentationConfig":
        if self.mixup + self.cutmix > 1:
            raise ValueError(
                "mixup and cutmix must not exceed 1 together, as a crop is mixed once. "
                f"Received: {self.mixup} and {self.cutmix}."
            )
        return self

    @classmethod
    def nothing(cls) -> "AugmentationConfig":
        """Returns the configuration that changes nothing."""
        return cls(rotation_deg=0, zoom=0, brightness=0, contrast=0, gamma=0, noise=0)


class EarlyStoppingConfig(_Config):
    """When training ends before its last epoch, and which epoch's weights are used then.

    What decides is a part of the TRAINING studies, by patient, that is kept out of training for it. The
    held-out fold is scored afterwards: to choose an epoch by it would make that score too good.

    Attributes:
        patience: epochs without a better value that end the training.
        metric: `loss`, or `weighted_log_loss` for graders: the competition's weighted log loss of all
            watched studies together.
        share: of the training patients that are kept out.
    """

    patience: Count
    metric: Literal["loss", "weighted_log_loss"] = "loss"
    share: Annotated[float, Field(gt=0, le=0.5)] = 0.15


class TrainingConfig(_Config):
    """How a network is fitted.

    Attributes:
        epochs: passes over the training folds.
        batch_studies: whole studies a batch.
        learning_rate: peak of the warm-up and cosine schedule (AdamW).
        warmup_fraction: share of the steps that warm up.
        weight_decay: decoupled weight decay.
        clip_norm: global gradient norm.
        ema_momentum: exponential moving average of the weights; 0 switches it off.
        weights: where each backbone starts: `none`, `imagenet` (an explicit download) or the path of
            a `.weights.h5` file. A backbone that is not named starts from nothing.
        freeze_batch_norm: keep batch normalisation as it came with given weights (it learns where
            there are none).
        augmentation: random changes.
        batch_norm_momentum: of the running statistics; short trainings need a short memory.
        validate_every: epochs between looks at the held-out fold; 0 looks only after training.
        cache: keep decoded slices in memory between epochs.
        early_stopping: None trains all epochs and uses the last one's weights.
        jit_compile: compile the step with XLA, on one device; the first step waits for it, and dropout draws
            other numbers.
        board_pictures: show the crops of the first batch, and the confusions at each validation, in
            TensorBoard.
    """

    epochs: Count
    batch_studies: Count
    learning_rate: Positive
    warmup_fraction: Fraction = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip_norm: Positive = 1.0
    ema_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weights: dict[str, str] = {}
    freeze_batch_norm: bool = False
    batch_norm_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    validate_every: Annotated[int, Field(ge=0)] = 1
    augmentation: AugmentationConfig = AugmentationConfig()
    cache: bool = False
    early_stopping: EarlyStoppingConfig | None = None
    jit_compile: bool = False
    board_pictures: bool = True

    def weights_of(self, backbone: str) -> str:
        """Returns where a backbone starts: `none`, `imagenet` or a file."""
        return self.weights.get(backbone, "none")


class LocalizerConfig(_Config):
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
            `lumbar_tf.ensemble.warm_start`.
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


class LabelNoiseConfig(_Config):
    """Which labels training leaves out: those that the members of a run before this one disagree with.

    Attributes:
        threshold: of 1 - p(label), p being the mean out-of-fold probability; as much or more is left out.
        oof: pattern of that run's out-of-fold tables, such as `before/*/*/oof.csv`.
    """

    threshold: Annotated[float, Field(gt=0, le=1)]
    oof: str


class GraderConfig(_Config):
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
            `lumbar_tf.ensemble.warm_start`.
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


class PlaneConfig(_Config):
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
        if each.covers_image or each.num_slices % 2 == 0 or each.side_px * each.supersample > 512:
            raise ValueError(
                "The localizer of axial_t2 takes an odd num_slices, no covers_image, and at most 512 for "
                f"side_px x supersample. Received: num_slices {each.num_slices}, covers_image "
                f"{each.covers_image}, {each.side_px} x {each.supersample}."
            )
        return self


class CohortConfig(_Config):
    """The synthetic cohort of the demo.

    Attributes:
        num_training: studies that train.
        num_held_out: studies that no stage of training sees.
        seed: of the cohort.
        severity_shift: raises the share of moderate and severe findings above the competition's.
        resolution: matrix sizes, `small` or `full`.
    """

    num_training: Count
    num_held_out: Count
    seed: int = 0
    severity_shift: float = 0.0
    resolution: Literal["small", "full"] = "small"


class DemoConfig(_Config):
    """The whole way on a synthetic cohort."""

    cohort: CohortConfig
    num_folds: Annotated[int, Field(ge=2, le=10)]
    planes: tuple[PlaneConfig, ...]


def default_config_path(plane: Plane) -> Path:
    """Returns `configs/<plane>.yaml` beside the package or in the working folder."""
    name = f"{plane.value}.yaml"
    here = Path("configs") / name
    return here if here.is_file() else Path(__file__).resolve().parent.parent / "configs" / name


def load_plane_config(path: Path, *, overrides: Sequence[str] = ()) -> PlaneConfig:
    """Reads one plane's configuration. See `load_config`."""
    return PlaneConfig.model_validate(_read(path, overrides, PlaneConfig))


def load_demo_config(path: Path, *, overrides: Sequence[str] = ()) -> DemoConfig:
    """Reads the demo's configuration. See `load_config`."""
    return DemoConfig.model_validate(_read(path, overrides, DemoConfig))


def _read(path: Path, overrides: Sequence[str], kind: type[_Config]) -> dict[str, Any]:
    """Reads YAML, applies `key.path=value` overrides and checks types.

    Raises:
        ValueError: names the file, the field, the rule and what came.
    """
    if not path.is_file():
        raise ValueError(f"The configuration must be an existing YAML file. Received: {path}.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} must be YAML. Received: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a mapping of fields. Received: {type(values).__name__}.")
    for override in overrides:
        _apply_override(values, override)
    try:
        kind.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{path}: {_describe(error)}") from error
    return values


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ValueError(
            f"--set must read key=value, such as grader.training.epochs=3. Received: {override!r}."
        )
    *parents, last = key.split(".")
    place: Any = values
    for parent in parents:
        if isinstance(place, list) and parent.isdigit() and int(parent) < len(place):
            place = place[int(parent)]
        elif isinstance(place, dict):
            place = place.setdefault(parent, {})
        else:
            raise ValueError(f"--set {override!r}: {parent!r} is not a group of fields.")
    if not isinstance(place, dict):
        raise ValueError(f"--set {override!r}: {last!r} is not inside a group of fields.")
    place[last] = yaml.safe_load(text)


def _describe(error: ValidationError) -> str:
    lines = []
    for each in error.errors():
        field = ".".join(str(part) for part in each["loc"]) or "the whole"
        lines.append(f"field {field}: {each['msg']}. Received: {each['input']!r}")
    return "; ".join(lines)


def dump_config(config: BaseModel) -> str:
    """Returns the resolved configuration as YAML text; `load_*_config` reads it back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


__all__ = [
    "AugmentationConfig",
    "CohortConfig",
    "CropConfig",
    "DemoConfig",
    "EarlyStoppingConfig",
    "GraderConfig",
    "LocalizerConfig",
    "PlaneConfig",
    "TrainingConfig",
    "default_config_path",
    "dump_config",
    "load_demo_config",
    "load_plane_config",
]
