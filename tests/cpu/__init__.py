"""The CPU core: pure functions, examples with literal numbers, and a tiny fluid host."""
