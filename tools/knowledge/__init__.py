"""The visual document knowledge base and its retrieval."""
