"""Backbones, heads, attention and the stores of Concept-Tuning."""
