"""The tests of the Upscaling API's contract: any implementation, named by its URL alone."""
