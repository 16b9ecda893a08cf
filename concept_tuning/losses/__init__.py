"""Losses, one a file; none of them imports a model."""
