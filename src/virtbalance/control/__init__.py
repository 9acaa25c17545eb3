"""The tick and everything around it: journal, settings, observers, recovery."""
