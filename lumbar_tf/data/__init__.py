"""From records and tables to training batches."""
