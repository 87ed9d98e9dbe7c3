"""The journal: the requests that the mock has received, and assertions about them."""
