"""Out-of-fold tables, stacking, calibration and intervals: tables in, tables out, no network."""
