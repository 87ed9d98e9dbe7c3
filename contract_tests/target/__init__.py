"""The implementation that is judged: how it is asked, and what it answered."""
