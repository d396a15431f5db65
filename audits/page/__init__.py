"""The page of an audit: one self-contained HTML file with its pictures, figures and evidence, for any browser."""

from .builder import PageFacts, build_page

__all__ = ["PageFacts", "build_page"]
