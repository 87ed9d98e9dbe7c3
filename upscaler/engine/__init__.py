"""Upscaling with torch: the networks, their weights, and how they are run."""
