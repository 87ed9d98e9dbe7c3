"""The mock of the Upscaling API: the service's routes over a backend without torch."""
