"""lumbar_tf: grades lumbar-spine MRI, from DICOM files to calibrated probabilities."""

__version__ = "0.1.0"
