"""Judges responses: which ones the rules allow, and whether one is among them."""
