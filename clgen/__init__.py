"""The generative host, discriminators and denoisers: nothing stands here yet."""
