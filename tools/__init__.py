"""What builds and packs the project: scripts, no library code."""
