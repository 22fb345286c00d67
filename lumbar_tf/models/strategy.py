"""Where a network trains: the devices of this machine and the numbers they compute in.

A batch that is spread over replicas must give the step that one device would make of it. Keras averages
the replicas' losses, clips each replica's gradient by itself and normalises each replica's part of the batch
by its own statistics; each of the three would make another step. Here losses sum their weights
over replicas (`total_over_replicas`), gradients are clipped after they are summed (`make_optimizer`), and
batch normalisation that learns is synchronised (`synchronise_batch_norm`).
"""

from collections.abc import Sequence
from enum import Enum
from functools import cache
from typing import Any

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
        return _mirrored()
    return tf.distribute.get_strategy()


@cache
def _mirrored() -> tf.distribute.Strategy:
    """One for the process: collective operations of a second one wait for the first one's for ever."""
    return tf.distribute.MirroredStrategy()


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


def describe_device() -> str:
    """Returns the kind of device that computes here, such as `GPU (NVIDIA H100)` or `CPU`."""
    if tf.config.list_logical_devices("TPU"):
        return "TPU"
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus or not tf.config.list_logical_devices("GPU"):
        return "CPU"
    details = tf.config.experimental.get_device_details(gpus[0])
    return f"GPU ({details.get('device_name', 'unknown')})"


def total_over_replicas(value: tf.Tensor) -> tf.Tensor:
    """Sums a value over the replicas that share a batch; without replicas it is the value.

    Keras adds the replicas' gradients of a scalar loss: one that divides by the sum of weights in the batch
    must divide by this total. No gradient flows through the total.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.stop_gradient(value))


def num_replicas() -> int:
    """Returns how many replicas share a batch here."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def synchronise_batch_norm(model: keras.Model) -> None:
    """Makes batch normalisation take its statistics over the whole batch, whatever replica holds it.

    To be called before the model is traced, where it trains on several replicas.
    """
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True


class SummedClipAdamW(keras.optimizers.AdamW):
    """AdamW that clips the gradient of the whole batch, not each replica's share of it."""

    def _clip_gradients(self, grads: Sequence[Any]) -> Sequence[Any]:
        context = tf.distribute.get_replica_context()
        known = [each for each in grads if each is not None]
        if context is not None and known:
            known = context.all_reduce(tf.distribute.ReduceOp.SUM, known)
        summed = iter(known)
        return super()._clip_gradients([None if each is None else next(summed) for each in grads])

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        # Done above, before the norm was taken.
        return grads_and_vars


def make_optimizer(
    *, learning_rate: float, weight_decay: float, clip_norm: float, ema_momentum: float
) -> keras.optimizers.Optimizer:
    """Builds AdamW with global clipping, without decay of biases and normalisation scales.

    Args:
        learning_rate: at the start; a schedule may set it at each step.
        weight_decay: decoupled.
        clip_norm: largest norm of the whole gradient.
        ema_momentum: of the moving average of the weights; 0 keeps none.
    """
    kind = SummedClipAdamW if num_replicas() > 1 else keras.optimizers.AdamW
    optimizer = kind(
        learning_rate,
        weight_decay=weight_decay,
        global_clipnorm=clip_norm,
        use_ema=ema_momentum > 0,
        ema_momentum=ema_momentum or 0.99,
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer
