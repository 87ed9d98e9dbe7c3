"""The requests that the mock has seen, and assertions about them."""
