"""The mock in suites of pytest."""
