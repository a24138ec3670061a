"""`contraux gan`: train a generator against a discriminator, with a contrastive auxiliary or without."""
