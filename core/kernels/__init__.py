"""Exact losses whose gradient is worked out by hand, for where automatic differentiation is what costs."""

from .cosine_info_nce import cosine_info_nce

__all__ = ["cosine_info_nce"]
