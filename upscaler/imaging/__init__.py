"""Image files to pixels, pixels to other sizes, and pixels to image files."""
