"""The contract of the API, without I/O: what a request may say, sizes, limits, and answers."""
