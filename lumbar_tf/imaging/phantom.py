"""Former name of `python -m lumbar_tf.synthetic`."""

from lumbar_tf.cli.arguments import exit_renamed

if __name__ == "__main__":
    exit_renamed("lumbar_tf.synthetic")
