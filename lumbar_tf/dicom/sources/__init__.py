"""Where studies lie: folders, exports, DICOMDIRs and zips."""
