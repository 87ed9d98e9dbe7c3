"""Derives the allowed outcome of a request from the rules; needs only the standard library."""
