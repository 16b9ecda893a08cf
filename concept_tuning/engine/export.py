"""Export of a trained run: safetensors with its names and settings, or an ONNX graph that stands alone."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from torch import Tensor, nn

from concept_tuning.engine.checkpoint import in_short, save_weights
from concept_tuning.engine.loading import LoadedRun
from concept_tuning.errors import RunError, TrainingError
from concept_tuning.methods.base import Method

FORMATS = ("safetensors", "onnx")


class Predictor(nn.Module):
    """Pictures in, probabilities out: normalisation, network and prediction rule in one module."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, image: Tensor) -> Tensor:
        """Return (B, C) probabilities for RGB pictures (B, 3, S, S) with values in 0..255."""
        return self.method.predict(self.method.backbone.normalise(image))["prediction"]


def export_run(run: LoadedRun, format: str, out: Path) -> Path:
    """Write a run's best model.

    ``safetensors`` holds backbone, classifier and front-door head, with class names and settings in its
    metadata. ``onnx`` takes ``image``: float32 (batch, 3, S, S), RGB in 0..255, resized and cropped
    like the run's evaluation view, and gives ``probabilities`` (batch, C); class names are in its
    metadata.

    Raises:
        RunError: for an unknown format, a missing optional package, or a file that cannot be written.
    """
    if format not in FORMATS:
        raise RunError(f"Unknown format {format!r}; there are {', '.join(FORMATS)}.")
    out = Path(out)
    if out.is_dir():
        raise RunError(f"{out} is a folder; name a file for --out.")
    if not out.parent.is_dir():
        raise RunError(f"The folder {out.parent} does not exist; make it or name another --out.")
    metadata = {
        "class_names": json.dumps(list(run.class_names)),
        "config": json.dumps(run.config.to_dict()),
        "image_size": str(run.config.data.image_size),
    }
    if format == "safetensors":
        try:
            save_weights(out, run.method.inference_state(), metadata)
        except TrainingError as error:
            raise RunError(f"{out} cannot be written: {in_short(error.__cause__ or error)}") from error
    else:
        _export_onnx(run, out, metadata)
    return out


def _export_onnx(run: LoadedRun, out: Path, metadata: dict[str, str]) -> None:
    try:
        import onnx
        import onnxscript  # noqa: F401 - torch's exporter needs it
    except ImportError as error:
        raise RunError("ONNX export needs two packages: pip install onnx onnxscript") from error
    size = run.config.data.image_size
    example = torch.zeros(2, 3, size, size)
    model = Predictor(run.method).eval().to(memory_format=torch.contiguous_format)
    program = torch.onnx.export(
        model,
        (example,),
        input_names=["image"],
        output_names=["probabilities"],
        dynamic_shapes={"image": {0: torch.export.Dim("batch", min=1)}},
        dynamo=True,
        verbose=False,
    )
    if program is None:
        raise RunError("torch could not export this network to ONNX.")
    proto = program.model_proto
    for key, value in metadata.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        onnx.save(proto, str(temporary))
        temporary.replace(out)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunError(f"{out} could not be written ({error.strerror}); name another --out.") from error
