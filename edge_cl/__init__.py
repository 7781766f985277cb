"""Edge-device continual learning: a model that keeps learning where it runs."""

__version__ = "0.1.0"
