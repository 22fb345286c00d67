"""Out-of-fold tables, stacking, calibration and the servable module."""
