"""A desk for every test here."""

from simulators.workshop import all_photos, backbone, photos, state, taught

__all__ = ["all_photos", "backbone", "photos", "state", "taught"]
