"""Single DICOM files: header, frames and pixels."""
