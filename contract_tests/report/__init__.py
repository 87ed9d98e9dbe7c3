"""What came of a run: as data, in a terminal, and as a page."""
