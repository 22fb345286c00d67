"""A result in the hospital's own formats: DICOM structured report, secondary capture, FHIR."""
