"""From DICOM files to slices in patient space. Never imports TensorFlow."""
