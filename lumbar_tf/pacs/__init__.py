"""Studies from a PACS and results back to it: DICOMweb, C-STORE, and the watch that grades what arrives."""
