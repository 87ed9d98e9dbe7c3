"""The service on Modal: its settings, its GPU workers, and the terminal's way to them."""
