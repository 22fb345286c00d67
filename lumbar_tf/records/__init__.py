"""Studies as TFRecord shards: schema, atomic writing, manifest."""
