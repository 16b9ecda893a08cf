"""The Gradio demo: two runs side by side on any picture, for a link that strangers open."""
