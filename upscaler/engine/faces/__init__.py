"""Faces: find them in a picture, restore them with GFPGAN, and paste them into the upscaled one."""
