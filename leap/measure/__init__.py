"""Measuring: how far tasks are from an initialization and from each other, pair by pair, resumable."""
