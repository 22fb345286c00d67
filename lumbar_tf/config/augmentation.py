"""Configuration of random augmentation."""

from typing import Annotated

from pydantic import Field, model_validator

from lumbar_tf.config.fields import Config, Fraction


class AugmentationConfig(Config):
    """Random changes during training; zero switches a change off.

    Geometric changes are composed into the affine map of the crop; the others act on the crop. Localizers use
    geometric and intensity changes; the rest is for graders.

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
        mixup: probability, for each crop, of being blended with the same level and side of another study.
        mixup_alpha: the blending share is Beta(alpha, alpha); a small alpha keeps one crop nearly unchanged.
        cutmix: probability, for each crop, of getting a rectangle from the same level and side of another
            study.
        cutmix_alpha: the same as `mixup_alpha` for the area of the rectangle.
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
