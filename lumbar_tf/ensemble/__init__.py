"""Stacking, calibration, intervals and label review, on tables alone."""
