"""Asynchronous inferences: jobs are kept under an id, and clients poll for them (ASY-1 to 5)."""
