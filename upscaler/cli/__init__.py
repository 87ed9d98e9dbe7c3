"""The command `upscaler`."""
