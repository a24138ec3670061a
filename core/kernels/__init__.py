"""Exact losses whose gradient is worked out by hand; `contrastive_loss` picks among them."""

from .entry import contrastive_loss

__all__ = ["contrastive_loss"]
