from __future__ import annotations

import numpy as np
import pytest
import torch

from concept_tuning.diagnostics.features import class_probabilities, class_scores, compute_features, network_input
from concept_tuning.engine.evaluation import predict_split


def test_features_are_those_of_evaluation(subjects, pictures) -> None:
    for subject in subjects:
        found = compute_features(subject, pictures)
        expected = predict_split(
            subject.method, pictures.split, image_size=subject.image_size, batch_size=5, device=torch.device("cpu")
        )
        for name, values in {**found.heads, "prediction": found.probabilities}.items():
            np.testing.assert_allclose(values, expected.probabilities[name], atol=2e-5)
        assert np.array_equal(found.predicted, expected.probabilities["prediction"].argmax(1))


def test_scores_and_probabilities_follow_the_rule_of_prediction(subjects, pictures) -> None:
    method = subjects[1].method
    assert method.prediction_heads == ("classifier", "front_door")
    with torch.no_grad():
        feature_map = method.backbone(network_input(method, pictures.images(range(4), 64)))
        heads = method.classify(feature_map)
        torch.testing.assert_close(class_scores(method, feature_map), torch.stack([*heads.values()]).mean(0))
        mean = torch.stack([logits.softmax(1) for logits in heads.values()]).mean(0)
        torch.testing.assert_close(class_probabilities(method, feature_map), mean)


@pytest.mark.parametrize("switches", [{"use_position": False}, {"use_channel": False}])
def test_switching_an_attention_off_reaches_the_front_door_head_alone(subjects, switches) -> None:
    method = subjects[1].method
    feature_map = torch.randn(2, method.backbone.num_features, 2, 2, generator=torch.Generator().manual_seed(0))
    gammas = [method.front_door.position.gamma, method.front_door.channel.gamma]
    before = [gamma.detach().clone() for gamma in gammas]
    try:
        with torch.no_grad():
            for gamma in gammas:
                gamma.fill_(1.0)
            whole, part = method.classify(feature_map), method.classify(feature_map, **switches)
    finally:
        for gamma, value in zip(gammas, before, strict=True):
            gamma.data.copy_(value)
    assert torch.equal(whole["classifier"], part["classifier"])
    assert not torch.allclose(whole["front_door"], part["front_door"])
