"""The mock in pytest suites."""
