"""Figures of results: a frozen result in, a plotly figure out; nothing is computed from models or data here."""
