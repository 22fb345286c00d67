"""Studies in, results out: reading, encoding, inference and the result of each study."""
