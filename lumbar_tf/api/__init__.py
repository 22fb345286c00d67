"""Implementation of the public names of `lumbar_tf`; import them from there."""
