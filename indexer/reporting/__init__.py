"""An evaluation as one HTML page that needs nothing but itself."""

from indexer.reporting.page import Page, render

__all__ = ["Page", "render"]
