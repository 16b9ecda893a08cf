"""What methods share that go on using the classifier which came with the pre-trained weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from concept_tuning.config import RunConfig
from concept_tuning.methods.base import Method, PictureSource
from concept_tuning.models.backbone import Backbone
from concept_tuning.models.source_head import adopt_shapes, load_source_head, source_classes


class SourceTaskMethod(Method):
    """A method with the source task's classifier beside its own, trained at the backbone's rate.

    The constructor makes the classifier in its right shape alone; :meth:`prepare` fills it before the first
    step of a run, and the state dict when a run goes on.

    Attributes:
        source_head: D features to S source classes.
    """

    needs_pretrained = True

    def __init__(self, config: RunConfig, backbone: Backbone, num_classes: int) -> None:
        """Build it; raises :class:`ConfigError` where there is no such classifier, see :mod:`.source_head`."""
        super().__init__(config, backbone, num_classes)
        self.source_head = nn.Linear(backbone.num_features, source_classes(backbone, config.backbone))

    @property
    def source_tensors(self) -> tuple[str, ...]:
        """Names in the state dict of what depends on the number of source classes."""
        return ("source_head.weight", "source_head.bias")

    def prepare(self, pictures: PictureSource) -> None:
        """Take over the pre-trained classifier."""
        loaded = load_source_head(self.backbone, self.config.backbone)
        self.source_head.load_state_dict(loaded.state_dict())

    def parameter_groups(self) -> list[dict[str, object]]:
        """Return the usual groups, the pre-trained classifier apart from the heads, at the backbone's rate."""
        optim = self.config.optim
        source = list(self.source_head.parameters())
        theirs = {id(parameter) for parameter in source}
        groups = super().parameter_groups()
        for group in groups:
            parameters: Any = group["params"]
            group["params"] = [parameter for parameter in parameters if id(parameter) not in theirs]
        return [*groups, {"name": "source_head", "params": source, "lr": optim.lr * optim.backbone_lr_scale}]

    def load_state_dict(self, state_dict: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        """Load a state dict, also of another number of source classes than was guessed without the weights."""
        adopt_shapes(self, state_dict, self.source_tensors)
        return super().load_state_dict(state_dict, *args, **kwargs)
