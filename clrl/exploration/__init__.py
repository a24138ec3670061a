"""Bonuses for novelty: where the embedding has not been before."""
