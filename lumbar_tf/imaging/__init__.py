"""Former place of `lumbar_tf.synthetic`."""
