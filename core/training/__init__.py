"""What every training loop on Accelerate needs: whole checkpoints, a record of progress, settings, the shared state."""
