"""Known data sets by name: their catalogue, and what reads each in its official layout on disk."""
