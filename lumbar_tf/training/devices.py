"""Devices, numeric precision and optimizer of a training run.

A batch that is shared by replicas must give the step that a single device would compute. Keras averages the
losses of the replicas, clips the gradients of each replica separately and normalises each replica's share of
the batch with its own statistics; each of the three would give a different step. Therefore losses divide by
the weights of the whole batch (`losses.total_over_replicas`), gradients are clipped after summation
(`make_optimizer`), and batch normalisation is synchronised (`backbones.synchronise_batch_norm`).
"""

from enum import Enum
from functools import cache

import keras
import tensorflow as tf

from lumbar_tf.models.keras_compat import AveragedAdamW, SummedClipAdamW


class StrategyName(Enum):
    """Distribution strategy of a training job."""

    AUTO = "auto"
    MIRRORED = "mirrored"
    TPU = "tpu"


def choose_strategy(name: StrategyName) -> tf.distribute.Strategy:
    """Returns the distribution strategy.

    `auto` mirrors over all GPUs if there are two or more, and uses the default device otherwise. `tpu` is
    untested.

    Raises:
        ValueError: `tpu` was requested and no TPU was found.
    """
    gpus = tf.config.list_logical_devices("GPU")
    if name is StrategyName.TPU:
        try:
            resolver = tf.distribute.cluster_resolver.TPUClusterResolver()
            tf.config.experimental_connect_to_cluster(resolver)
            tf.tpu.experimental.initialize_tpu_system(resolver)
        except (ValueError, tf.errors.NotFoundError) as error:
            raise ValueError(f"--strategy=tpu needs a TPU. Received: none ({error}).") from error
        return tf.distribute.TPUStrategy(resolver)
    if name is StrategyName.MIRRORED or len(gpus) > 1:
        return _mirrored()
    return tf.distribute.get_strategy()


@cache
def _mirrored() -> tf.distribute.Strategy:
    """Returns the process's only MirroredStrategy: the collective operations of a second one would block."""
    return tf.distribute.MirroredStrategy()


def choose_precision(setting: str) -> str:
    """Sets and returns Keras' dtype policy: mixed half precision on a GPU or TPU, float32 on a CPU.

    Args:
        setting: `auto`, or `off` for float32 everywhere.
    """
    policy = "float32"
    if setting == "auto" and tf.config.list_logical_devices("TPU"):
        policy = "mixed_bfloat16"
    elif setting == "auto" and tf.config.list_logical_devices("GPU"):
        policy = "mixed_float16"
    keras.config.set_dtype_policy(policy)
    return policy


def describe_device() -> str:
    """Returns the kind of device in use, such as `GPU (NVIDIA H100)` or `CPU`."""
    if tf.config.list_logical_devices("TPU"):
        return "TPU"
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus or not tf.config.list_logical_devices("GPU"):
        return "CPU"
    details = tf.config.experimental.get_device_details(gpus[0])
    return f"GPU ({details.get('device_name', 'unknown')})"


def make_optimizer(
    *, learning_rate: float, weight_decay: float, clip_norm: float, ema_momentum: float
) -> keras.optimizers.Optimizer:
    """Returns AdamW with global clipping and without weight decay of biases and normalisation parameters.

    Args:
        learning_rate: initial value; a schedule may set it at each step.
        weight_decay: decoupled weight decay.
        clip_norm: largest norm of the whole gradient.
        ema_momentum: of the moving average of the weights; 0 keeps no average.
    """
    num_replicas = tf.distribute.get_strategy().num_replicas_in_sync
    kind = SummedClipAdamW if num_replicas > 1 else AveragedAdamW
    optimizer = kind(
        learning_rate,
        weight_decay=weight_decay,
        global_clipnorm=clip_norm,
        use_ema=ema_momentum > 0,
        ema_momentum=ema_momentum or 0.99,
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer
