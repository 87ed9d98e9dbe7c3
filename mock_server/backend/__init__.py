"""The mock's backend: its upscaler, its jobs, and the images behind URLs."""
