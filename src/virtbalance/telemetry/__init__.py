"""Records of ticks: log lines, JSON lines, the last tick on disk."""
