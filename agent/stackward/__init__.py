"""Stackward: a sidecar appliance for Docker Compose hosts."""

__version__ = "0.1.0"
