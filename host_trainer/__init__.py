"""What runs in the workshop: trains, compresses and publishes what devices run."""
