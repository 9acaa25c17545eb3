"""A host that is not there: pCPUs, a kernel, guests, balloons."""
