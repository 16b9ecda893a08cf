"""Fine-tuning methods behind one small interface."""
