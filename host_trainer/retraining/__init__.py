"""Makes the fleet's next release of what its devices sent: merges, trains, proves, signs, and says why."""
