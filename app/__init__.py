"""The Streamlit dashboard: it shows what the core and the diagnostics compute, and computes nothing of its own."""
