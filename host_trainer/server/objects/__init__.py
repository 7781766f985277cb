"""Where contents lie: bytes under their SHA-256, in a folder or in an S3-compatible store."""
