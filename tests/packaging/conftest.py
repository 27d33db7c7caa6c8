"""The toy backend is a project of its own, tested where it is installed: see test_packaging.py."""

collect_ignore = ["toy_backend"]
