"""Reading a chain: files, states, lineage."""
