"""`contraux diffusion`: train a denoiser of diffusers, with a contrastive auxiliary or without."""
