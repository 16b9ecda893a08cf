"""Data sources, splits, the decoded-image cache and augmentation."""
