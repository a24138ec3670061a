"""Contrastive objectives for diffusion denoisers: one a file."""
