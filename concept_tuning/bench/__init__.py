"""The bench: methods by data, backbones, sample rates and seeds, each tuned with the same budget."""
