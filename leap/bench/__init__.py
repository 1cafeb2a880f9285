"""Benchmarks: contenders measured in turns, goals judged by intervals, and what moved since an older run."""
