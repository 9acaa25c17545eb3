"""Comparing policies honestly: on simulated hosts, recorded hosts and real guests."""
