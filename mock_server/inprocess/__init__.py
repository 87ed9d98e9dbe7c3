"""The mock without a socket, for clients of httpx."""
