"""The service on Modal: its settings, its GPU workers, and the command that uses them."""
