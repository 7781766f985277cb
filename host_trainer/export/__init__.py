"""Turns trained networks into what each target runs, and proves that the result still answers alike."""
