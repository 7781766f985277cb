"""Trains a whole network class after class, sparsely: replay, dynamic masks, data removal."""
