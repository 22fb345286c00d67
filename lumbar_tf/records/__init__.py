"""Studies as TFRecord shards: schema, building, manifest, verification."""
