"""Stacking, calibration, intervals, label review and what points cost, on tables alone."""
