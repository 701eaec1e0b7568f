"""The report of a run: report.html (one self-contained page), tables in Markdown and on the terminal."""

from safepref.report.documents import document_tables
from safepref.report.html import write_report
from safepref.report.tables import markdown_table, methods_table, print_summary

__all__ = ["document_tables", "markdown_table", "methods_table", "print_summary", "write_report"]
