"""Pages that a person looks at: one HTML file each, with charts, that needs nothing else."""
