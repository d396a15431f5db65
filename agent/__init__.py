"""The mind: settings, report, reasoners, conversation; the public API."""
