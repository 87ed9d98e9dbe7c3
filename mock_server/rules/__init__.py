"""The rules of the API, their sources, and which of them an error response is about."""
