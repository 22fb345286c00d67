"""DICOM files to slices in patient space."""
