"""What every training on Accelerate shares: its start, its loop, whole checkpoints, a record of progress, settings."""
