"""Client of an exported ensemble behind TensorFlow Serving, over gRPC or REST."""
