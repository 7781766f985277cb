"""What a device tells its host, and how: what may leave, what was told already, the conversation itself."""
