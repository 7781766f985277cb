"""Installs a release: checked, tried in the shadow of what runs, swapped in, watched, then kept or undone."""
