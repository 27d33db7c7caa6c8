"""Compaction: what may go, by retention, is removed, and then the free space given back."""
