"""Dividing memory: pure decisions."""
