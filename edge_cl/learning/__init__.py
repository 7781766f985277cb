"""The learner: numpy only and pure; no disk, no clock, no global random state."""
