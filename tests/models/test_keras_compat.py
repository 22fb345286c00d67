"""Contract with the private names of Keras and TensorFlow: fails when a version changes what is relied on."""

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from lumbar_tf.models import keras_compat
from lumbar_tf.models.backbones import build_backbone


def _dense_model() -> keras.Model:
    inputs = keras.Input((3,), name="inputs")
    hidden = keras.layers.Dense(2, name="hidden")(inputs)
    return keras.Model(inputs, keras.layers.Dense(1, name="last")(hidden))


def test_layers_inside_layers_are_found() -> None:
    model = build_backbone("csp_darknet_narrow", size_px=32)
    layers = keras_compat.flatten_layers(model)
    norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    outermost = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(norms) > len(outermost)
    assert sum(np.prod(norm.gamma.shape) for norm in norms) == sum(
        np.prod(weight.shape) for weight in model.weights if weight.path.endswith("gamma")
    )


def test_symbolic_tensors_know_their_operation_and_its_sources() -> None:
    model = _dense_model()
    (hidden,) = keras_compat.source_tensors(model.output)
    assert keras_compat.producing_operation(model.output) is model.get_layer("last")
    assert keras_compat.producing_operation(hidden) is model.get_layer("hidden")
    assert keras_compat.source_tensors(hidden) == [model.input]
    assert keras_compat.source_tensors(model.input) == []


def test_fit_calls_the_build_that_is_skipped() -> None:
    model = _dense_model()
    model.compile("sgd", "mse")
    replaced = model._maybe_symbolic_build
    assert callable(replaced)
    keras_compat.skip_symbolic_build(model)
    assert model._maybe_symbolic_build is not replaced
    model.fit(np.zeros((2, 3)), np.zeros((2, 1)), verbose=0)


def test_moving_averages_are_paired_with_their_weights() -> None:
    model = _dense_model()
    model.compile(keras.optimizers.AdamW(0.1, use_ema=True, ema_momentum=0.5), "mse")
    for _ in range(2):  # the average begins with the first step's weights
        model.train_on_batch(np.ones((2, 3)), np.ones((2, 1)))
    pairs = keras_compat.moving_averages(model)
    assert [id(weight) for weight, _ in pairs] == [id(weight) for weight in model.trainable_variables]
    assert all(average.shape == weight.shape for weight, average in pairs)
    assert any(np.any(np.asarray(average) != np.asarray(weight)) for weight, average in pairs)


@pytest.mark.parametrize("momentum", [0.5, 0.99])
def test_the_moving_average_is_the_weighted_mean_of_all_steps(momentum: float) -> None:
    model = _dense_model()
    model.compile(keras_compat.AveragedAdamW(0.1, use_ema=True, ema_momentum=momentum), "mse")
    steps: list[list[np.ndarray]] = []
    for _ in range(14):
        model.train_on_batch(np.ones((2, 3)), np.ones((2, 1)))
        steps.append([np.asarray(weight) for weight in model.trainable_variables])
        shares = momentum ** np.arange(len(steps))[::-1]
        for place, (_, average) in enumerate(keras_compat.moving_averages(model)):
            expected = np.average([weights[place] for weights in steps], axis=0, weights=shares)
            np.testing.assert_allclose(np.asarray(average), expected, atol=1e-5)


def test_no_moving_averages_where_none_are_kept() -> None:
    model = _dense_model()
    model.compile(keras.optimizers.AdamW(0.1), "mse")
    model.optimizer.build(model.trainable_variables)
    assert keras_compat.moving_averages(model) == []


def test_gradients_are_clipped_by_the_overridden_method_and_summed_once() -> None:
    """On one device the steps are those of AdamW, and both hooks are called."""
    calls: list[str] = []

    class Recorder(keras_compat.SummedClipAdamW):
        def _clip_gradients(self, grads: object) -> object:
            calls.append("clip")
            return super()._clip_gradients(grads)

        def _all_reduce_sum_gradients(self, grads_and_vars: object) -> object:
            calls.append("sum")
            return super()._all_reduce_sum_gradients(grads_and_vars)

    weights = []
    for kind in (Recorder, keras.optimizers.AdamW):
        variable = keras.Variable([1.0, -2.0])
        optimizer = kind(0.1, global_clipnorm=0.5)
        optimizer.build([variable])
        optimizer.apply([tf.constant([3.0, 4.0])], [variable])
        weights.append(np.asarray(variable))
    np.testing.assert_array_equal(*weights)
    assert calls == ["clip", "sum"]


def test_registered_gradients_are_removed_and_their_graph_is_freed() -> None:
    @tf.custom_gradient
    def twice(value: tf.Tensor) -> tuple[tf.Tensor, object]:
        return 2 * value, lambda upstream: 2 * upstream

    keras_compat.forget_custom_gradients()
    graph = tf.Graph()
    with graph.as_default():
        twice(tf.constant(1.0))
    reference = weakref.ref(graph)
    del graph
    gc.collect()
    assert reference() is not None, "TensorFlow frees custom gradients by itself now: the workaround can go"
    assert keras_compat.forget_custom_gradients() == 1
    gc.collect()
    assert reference() is None
    assert keras_compat.forget_custom_gradients() == 0
