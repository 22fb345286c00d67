"""Fitting, checkpoints and cross-validation of a plane's networks."""
