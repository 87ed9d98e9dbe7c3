"""A drop-in for OctoAI's image Upscaling API: tiled Real-ESRGAN behind one POST.

`upscaler.api` is the API as data, `upscaler.engine` upscales images, `upscaler.service` serves them
over HTTP and `upscaler.cli` is the command line. Importing this package imports none of them.
"""
