"""The mock without a socket, for clients that use httpx."""
