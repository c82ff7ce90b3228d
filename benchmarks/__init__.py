"""Measurements. Nothing here asserts a time: read the ratio to the raw floor of the same run."""
