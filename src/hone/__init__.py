"""Hone fine-tunes transformer models and hands over versions that can be trusted enough to promote."""

__version__ = "0.1.0"
