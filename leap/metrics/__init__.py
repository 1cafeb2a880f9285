"""Measurements: of walks (path), of samples of results (statistics)."""
