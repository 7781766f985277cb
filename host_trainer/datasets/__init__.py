"""Turns image folders into batches: listing, decoding once, splits, augmentation, order."""
