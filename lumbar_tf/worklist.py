"""Former name of `python -m lumbar_tf.review_labels`."""

from lumbar_tf.cli.arguments import exit_renamed

if __name__ == "__main__":
    exit_renamed("lumbar_tf.review_labels")
