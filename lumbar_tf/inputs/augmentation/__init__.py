"""Random changes of training crops, as stateless graph operations of static shape.

Every function takes a seed, int32 [2], and gives the same change for the same seed. The geometric part
(`warp`) is composed into the crop's one interpolation; `intensity`, `artefacts` and `occlusion` act on the
crops of one study once they are cut (`operations` says in which order), and `mixing` on a batch of studies.
"""

from lumbar_tf.inputs.augmentation.mixing import mix_studies
from lumbar_tf.inputs.augmentation.operations import augment_crops, random_intensity
from lumbar_tf.inputs.augmentation.warp import random_warp

__all__ = ["augment_crops", "mix_studies", "random_intensity", "random_warp"]
