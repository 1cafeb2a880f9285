"""Runs side by side: a table for the terminal, pictures, and one page that tells the whole story."""

from leap.report.leave_one_out import LeaveOneOut, gather
from leap.report.leave_one_out_page import write_leave_one_out
from leap.report.leave_one_out_text import leave_one_out_text, write_leave_one_out_rows
from leap.report.measures import write_measures
from leap.report.page import write_report
from leap.report.returns_text import comparison_text
from leap.report.runs import only_measured, read_runs
from leap.report.summary import Summary, summarize
from leap.report.text import measured_text

__all__ = [
    "LeaveOneOut",
    "Summary",
    "comparison_text",
    "gather",
    "leave_one_out_text",
    "measured_text",
    "only_measured",
    "read_runs",
    "summarize",
    "write_leave_one_out",
    "write_leave_one_out_rows",
    "write_measures",
    "write_report",
]
