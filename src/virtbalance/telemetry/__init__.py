"""Ticks, plans and outlooks as JSON: a line each, and the last tick on disk."""
