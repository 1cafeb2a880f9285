"""Runs side by side: a table for the terminal, pictures, and one page that tells the whole story."""

from leap.report.measures import write_measures
from leap.report.page import write_report
from leap.report.runs import only_measured, read_runs
from leap.report.summary import Summary, summarize
from leap.report.text import comparison_text, measured_text

__all__ = [
    "Summary",
    "comparison_text",
    "measured_text",
    "only_measured",
    "read_runs",
    "summarize",
    "write_measures",
    "write_report",
]
