"""A diagnosis as one self-contained page: chapters of text, figures and tables made from results only."""
