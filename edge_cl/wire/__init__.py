"""Bytes that both ends speak."""
