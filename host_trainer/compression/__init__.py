"""Makes a network smaller: prunes weights and channels, shares weights, splits convolutions."""
