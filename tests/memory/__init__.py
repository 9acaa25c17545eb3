"""Tests of the memory coordinator's pure core."""
