"""Argument parsing and exit codes; one module a sub-command."""
