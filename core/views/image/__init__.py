"""Augmentations of image batches on their device, with parameters of its own for every image."""
