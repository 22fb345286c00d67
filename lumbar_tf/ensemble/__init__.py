"""Stacking, calibration, intervals, prediction sets, label review and what points cost, on tables alone."""
