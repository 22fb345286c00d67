"""Random augmentation of training inputs, as stateless graph operations of static shape.

Every function takes a seed, int32 [2], and is a pure function of it. `random_warp` is composed into the
crops' one interpolation; the other operations change the crops of one study after they are cut, and
`mix_studies` changes a batch of studies.
"""

from lumbar_tf.inputs.augmentation.mixing import mix_studies
from lumbar_tf.inputs.augmentation.operations import (
    augment_crops,
    jitter_points,
    random_intensity,
    random_warp,
)

__all__ = [
    "augment_crops",
    "jitter_points",
    "mix_studies",
    "random_intensity",
    "random_warp",
]
