"""Placing vCPUs: pure decisions."""
