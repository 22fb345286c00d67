"""Pseudonyms, and the identifying values of DICOM headers."""
