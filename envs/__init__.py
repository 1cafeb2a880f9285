"""Simulators: environments that reinforcement-learning tasks act in."""
