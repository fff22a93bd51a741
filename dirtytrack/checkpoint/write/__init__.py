"""Writing a chain: from a captured save to a committed file."""
