"""Reading of DICOM files into slices in patient space."""
