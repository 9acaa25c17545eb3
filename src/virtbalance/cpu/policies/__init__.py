"""Policies that place vCPUs, one file each."""
