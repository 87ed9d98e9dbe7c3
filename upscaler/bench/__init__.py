"""What `upscaler bench` runs: this engine and its peers, measured in interleaved runs."""
