"""The mock's backend: its images, its jobs, and the images behind URLs."""
