"""Measurements and pictures of finished runs; not part of the installed package."""
