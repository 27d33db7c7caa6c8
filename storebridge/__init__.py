"""Job and execution stores with the same semantics on every storage engine."""

__version__ = "0.1.0"
