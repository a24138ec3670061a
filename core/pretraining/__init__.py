"""Pretraining encoders on their own: methods, each a paper's algorithm, and one trainer on Accelerate."""

from .method import Branch, Method, MethodFactory

__all__ = ["Branch", "Method", "MethodFactory"]
