"""Where the files of a chain live."""
