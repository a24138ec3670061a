"""contraux: contrastive auxiliary objectives for what you already train, and encoder pretraining on its own."""

__version__ = "0.1.0"
