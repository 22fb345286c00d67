"""The ensemble's description as a signature: a model server hands out no files."""

import tensorflow as tf


def make_describe(text: str) -> tf.types.experimental.GenericFunction:
    """Returns a function that answers each row of its input with the same text.

    Args:
        text: JSON, as in `assets.extra/ensemble.json`.

    Returns:
        From `study`, string [study], whose content does not count, to `description`, string [study]: the
        study is the first dimension here too, so that a server that batches takes it as any other.
    """

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="study")], autograph=False)
    def describe(study: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"description": tf.fill(tf.shape(study), tf.constant(text))}

    return describe
