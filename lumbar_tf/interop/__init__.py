"""DICOM SR, secondary captures and FHIR; DICOMweb, C-STORE and the watch that grades new studies."""
