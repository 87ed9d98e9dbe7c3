"""The API over HTTP, in front of any backend that upscales images."""
