"""What `docs/format.md` says, as code: structures, codecs, region tables, blocks."""
