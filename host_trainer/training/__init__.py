"""Trains a network: one step on either backend, the loop around it, and what lets it go on after a stop."""
