"""Training from random weights: what pre-training is compared with."""

from __future__ import annotations

from concept_tuning.methods.vanilla import Vanilla


class Scratch(Vanilla):
    """Train the same network from random weights, every layer at the full learning rate."""

    name = "scratch"
    summary = "The same network trained from random weights: the yardstick of negative transfer."
    reference = "Concept-Tuning (arXiv 2311.06868), section 1"

    def parameter_groups(self) -> list[dict[str, object]]:
        """Return one group at ``lr``: nothing here is pre-trained, so nothing is held back."""
        return [{"name": "all", "params": list(self.parameters()), "lr": self.config.optim.lr}]
