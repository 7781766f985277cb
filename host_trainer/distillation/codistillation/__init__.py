"""Peers that train at once and teach each other through stale checkpoints (Anil et al. 2018)."""
