"""Makes the networks that become backbones: from a name, from weights, from a TFLite file."""
