"""The contract of the API as data: requests, sizes, limits, headers and responses.

It does no I/O, and imports neither FastAPI nor torch. The service and the mock are both built on
it, so that they cannot drift apart.
"""
