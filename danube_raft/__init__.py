"""Danube's replicated metadata store."""

__version__ = "0.1.0"
