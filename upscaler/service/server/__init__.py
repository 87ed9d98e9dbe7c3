"""The HTTP server below the app: connections, their limits, and the parsing of requests."""
