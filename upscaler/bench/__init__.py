"""What `upscaler bench` is made of: the engine and its peers, measured by turns."""
