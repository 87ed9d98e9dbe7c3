"""The requests that are sent, and the images in them."""
