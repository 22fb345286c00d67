"""Where a network trains: the devices of this machine and the numbers they compute in."""

from enum import Enum

import keras
import tensorflow as tf


class StrategyName(Enum):
    """How one job uses its accelerators."""

    AUTO = "auto"
    MIRRORED = "mirrored"
    TPU = "tpu"


def choose_strategy(name: StrategyName) -> tf.distribute.Strategy:
    """Returns the distribution strategy.

    `auto` mirrors over all GPUs where there are two or more and uses the default device otherwise.
    TPU could not be tried where this was written: untested.

    Raises:
        ValueError: a TPU was asked for and none was found.
    """
    gpus = tf.config.list_logical_devices("GPU")
    if name is StrategyName.TPU:
        try:
            resolver = tf.distribute.cluster_resolver.TPUClusterResolver()
            tf.config.experimental_connect_to_cluster(resolver)
            tf.tpu.experimental.initialize_tpu_system(resolver)
        except (ValueError, tf.errors.NotFoundError) as error:
            raise ValueError(f"--strategy=tpu needs a TPU; none was found ({error}).") from error
        return tf.distribute.TPUStrategy(resolver)
    if name is StrategyName.MIRRORED or len(gpus) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def choose_precision(setting: str) -> str:
    """Sets and returns Keras' dtype policy: half precision on a GPU or TPU, float32 on a CPU.

    Args:
        setting: `auto` or `off`.
    """
    policy = "float32"
    if setting == "auto" and tf.config.list_logical_devices("TPU"):
        policy = "mixed_bfloat16"
    elif setting == "auto" and tf.config.list_logical_devices("GPU"):
        policy = "mixed_float16"
    keras.config.set_dtype_policy(policy)
    return policy
