"""Contrastive objectives for GAN discriminators: one method a file."""
