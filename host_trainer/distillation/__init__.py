"""Teaches a network what another one knows: losses, teachers, and peers that teach each other."""
