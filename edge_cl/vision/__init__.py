"""Pixels to features: safe pictures, one resize policy, a frozen backbone on whichever engine is there."""
