"""Prepares networks for eight bits: folds their normalisation, and trains them with the rounding in place."""
