"""The tick and everything around it: guard, journal, settings, observers, recovery."""
