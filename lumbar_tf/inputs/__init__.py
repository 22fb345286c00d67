"""tf.data pipelines: slice selection, crops, localizer inputs, datasets and augmentation."""
