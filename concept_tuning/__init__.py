"""Concept-Tuning Studio: fine-tune image classifiers concept by concept and see what they look at."""

__version__ = "0.1.0"
