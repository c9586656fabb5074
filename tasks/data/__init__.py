"""Read raw and prepared data: tables, side files, schemas, normalization, examples in memory or on disk."""
