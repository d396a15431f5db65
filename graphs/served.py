"""The inspection graph for graph servers: langgraph.json names ``graph``.

Importing this module reads the settings, from the environment as always. The graph is compiled without a checkpointer,
since the server brings its own; arrays are kept on disk for a run that is resumed after the server was started anew.
"""

from __future__ import annotations

from ..agent.artifacts import ArtifactStore
from ..agent.inspector import InspectionDeps
from ..agent.settings import load_settings
from .inspection import build_inspection_graph

_loaded = load_settings()
graph = build_inspection_graph(InspectionDeps(_loaded, ArtifactStore(_loaded.home.artifacts)))
"""From InspectionInput to InspectionOutput."""
