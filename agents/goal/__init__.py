"""Contrastive goal-conditioned reinforcement learning."""
