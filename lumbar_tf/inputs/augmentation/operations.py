"""The changes of one study's pictures, in their order, all of them or a random choice."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from lumbar_tf.config import AugmentationConfig
from lumbar_tf.inputs.augmentation.artefacts import random_motion_ghost, random_spike
from lumbar_tf.inputs.augmentation.draws import Draw, uniform
from lumbar_tf.inputs.augmentation.intensity import (
    random_bias_field,
    random_blur,
    random_brightness,
    random_contrast,
    random_gamma,
    random_noise,
)
from lumbar_tf.inputs.augmentation.occlusion import random_cutout, random_grid_mask, random_slice_drop
from lumbar_tf.inputs.crops import Crops

#: Takes an image, float32 [P, S, H, W], a seed and the limits; returns the same shape.
Operation = Callable[[tf.Tensor, tf.Tensor, AugmentationConfig], tf.Tensor]

#: By the field of the configuration that switches it on, in the order in which they act: what happens in the
#: scanner, which needs magnitudes, before what happens to the finished picture.
INTENSITY: dict[str, Operation] = {
    "bias_field": random_bias_field,
    "blur_px": random_blur,
    "motion_ghost": random_motion_ghost,
    "spike": random_spike,
    "gamma": random_gamma,
    "contrast": random_contrast,
    "brightness": random_brightness,
    "noise": random_noise,
}
OCCLUSION: dict[str, Operation] = {"cutout": random_cutout, "grid_mask": random_grid_mask}
#: As `inputs.crops.resample` bounds a crop.
_HIGHEST = 1.5


def random_intensity(image: tf.Tensor, seed: tf.Tensor, config: AugmentationConfig) -> tf.Tensor:
    """Changes the intensities of a study.

    Args:
        image: float32 [..., S, H, W] of static shape, 0 to 1.5: crops, or a localizer's field.
        seed: int32 [2].
        config: limits.

    Returns:
        The same shape, within [0, 1.5].
    """
    crops = tf.reshape(image, [-1, *image.shape[-3:]])
    return tf.reshape(_apply(INTENSITY, crops, seed, config), image.shape)


def augment_crops(crops: Crops, seed: tf.Tensor, config: AugmentationConfig) -> Crops:
    """Applies all changes that act on the crops of a study after they are cut."""
    image = _apply({**INTENSITY, **OCCLUSION}, crops.image, seed, config)
    mask = random_slice_drop(crops.mask, seed, config)
    return Crops(
        image=tf.where(mask[..., tf.newaxis, tf.newaxis], image, 0.0),
        mask=mask,
        offset_mm=crops.offset_mm,
    )


def _apply(
    operations: dict[str, Operation], image: tf.Tensor, seed: tf.Tensor, config: AugmentationConfig
) -> tf.Tensor:
    """Applies what is switched on; nothing switched on gives the image itself."""
    active = [operation for name, operation in operations.items() if getattr(config, name) > 0]
    if not active:
        return image
    chosen = _choose(active, image.shape[0], seed, config)
    for place, operation in enumerate(active):
        changed = operation(image, seed, config)
        image = changed if chosen is None else tf.where(chosen[:, place], changed, image)
    return tf.clip_by_value(image, 0.0, _HIGHEST)


def _choose(
    active: Sequence[Operation], crops: int, seed: tf.Tensor, config: AugmentationConfig
) -> tf.Tensor | None:
    """Draws which operations each crop gets, bool [P, operations, 1, 1, 1]; None stands for all."""
    if config.num_operations == 0 or config.num_operations >= len(active):
        return None
    score = uniform(seed, Draw.CHOICE, 0.0, 1.0, (crops, len(active)))
    rank = tf.argsort(tf.argsort(score, axis=-1), axis=-1)
    return (rank < config.num_operations)[..., tf.newaxis, tf.newaxis, tf.newaxis]
