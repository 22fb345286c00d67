"""Sources of studies: folders, exports, DICOMDIRs and zip archives."""
