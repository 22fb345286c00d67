"""One DICOM file: from its bytes to its header, its frames and their pixels."""
