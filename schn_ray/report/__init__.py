"""Figures and the self-contained HTML report."""

from schn_ray.report.data import Example, Neighbour, Picture, ReportData
from schn_ray.report.page import write_report, write_search_page

__all__ = [
    "Example",
    "Neighbour",
    "Picture",
    "ReportData",
    "write_report",
    "write_search_page",
]
