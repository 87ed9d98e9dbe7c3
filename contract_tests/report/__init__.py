"""The results of a run: as data, as text, and as an HTML page."""
