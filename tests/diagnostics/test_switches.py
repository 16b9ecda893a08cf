from __future__ import annotations

import numpy as np
import pytest
import torch

from concept_tuning.diagnostics.attribution import class_activations
from concept_tuning.diagnostics.features import compute_features
from concept_tuning.diagnostics.results import Unavailable, load_result, save_result
from concept_tuning.diagnostics.switches import FrontDoorSwitches, front_door_switches, switch_outcome


@pytest.fixture
def gammas(subjects):
    """Set both scales for one test."""
    head = subjects[1].method.front_door
    parameters = (head.position.gamma, head.channel.gamma)
    before = [parameter.detach().clone() for parameter in parameters]

    def fill(position: float, channel: float) -> None:
        for parameter, value in zip(parameters, (position, channel), strict=True):
            parameter.data.fill_(value)

    yield fill
    for parameter, value in zip(parameters, before, strict=True):
        parameter.data.copy_(value)


def test_without_scale_the_switches_do_nothing(subjects, pictures, gammas) -> None:
    gammas(0.0, 0.0)
    found = front_door_switches(subjects[1], pictures, compute_features(subjects[1], pictures))
    assert (found.position_gamma, found.channel_gamma) == (0, 0)
    for outcome in found.outcomes:
        assert outcome.flips.value == 0
        assert outcome.agreement.value == 1
        assert outcome.probability_shift < 1e-6


def test_each_switch_reaches_its_own_attention(subjects, pictures, gammas) -> None:
    gammas(3.0, 0.0)
    found = front_door_switches(subjects[1], pictures, compute_features(subjects[1], pictures))
    shift = {(one.reads, one.name): one.probability_shift for one in found.outcomes}
    assert shift["front_door", "position off"] > 1e-3
    assert shift["front_door", "channel off"] < 1e-6
    assert shift["front_door", "both off"] == pytest.approx(shift["front_door", "position off"], rel=1e-4)
    # the rule is the mean of two heads, and the switch moves one of them
    assert shift["prediction", "position off"] == pytest.approx(shift["front_door", "position off"] / 2, rel=1e-3)


def test_everything_on_is_the_prediction(subjects, pictures) -> None:
    features = compute_features(subjects[1], pictures)
    found = front_door_switches(subjects[1], pictures, features)
    assert [(one.reads, one.name) for one in found.outcomes] == [
        (reads, name)
        for reads in ("prediction", "front_door")
        for name in ("everything on", "position off", "channel off", "both off")
    ]
    assert np.array_equal(found.outcomes[0].predicted, features.predicted)
    assert np.array_equal(found.outcomes[4].predicted, features.heads["front_door"].argmax(1))
    assert found.rule == ("classifier", "front_door")


def test_the_shares_of_hand_made_probabilities() -> None:
    before = np.eye(2)[[0, 0, 1, 1, 0, 1]]
    after = np.eye(2)[[0, 1, 1, 0, 1, 1]]
    labels, groups = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 1, 0, 1, 0, 1])
    found = switch_outcome(
        after,
        before,
        labels,
        groups=groups,
        class_names=("a", "b", "nobody"),
        group_names=("g", "h"),
        name="position off",
        reads="prediction",
        use_position=False,
        use_channel=True,
    )
    assert found.accuracy.value == pytest.approx(3 / 6)
    assert found.flips.value == pytest.approx(3 / 6)
    assert (found.lost, found.won) == (2, 1)
    assert found.p_value == pytest.approx(1.0)  # 2 against 1 of 3
    assert found.probability_shift == pytest.approx(0.5)
    assert [(one.name, one.accuracy.value, one.accuracy_before.value, one.flips.value) for one in found.classes] == [
        ("a", pytest.approx(1 / 3), pytest.approx(2 / 3), pytest.approx(1 / 3)),
        ("b", pytest.approx(2 / 3), pytest.approx(2 / 3), pytest.approx(2 / 3)),
    ]
    assert {one.name: one.flips.n for one in found.cells} == {"a | g": 2, "a | h": 1, "b | g": 1, "b | h": 2}
    assert sum(one.flips.n for one in found.groups) == 6


@pytest.mark.parametrize(("lacking", "switch"), [("position", "channel off"), ("channel", "position off")])
def test_a_head_with_one_attention_has_one_switch(subjects, pictures, lacking: str, switch: str) -> None:
    head = subjects[1].method.front_door
    features = compute_features(subjects[1], pictures)
    attention = getattr(head, lacking)
    setattr(head, lacking, None)
    try:
        found = front_door_switches(subjects[1], pictures, features)
    finally:
        setattr(head, lacking, attention)
    assert {one.name for one in found.outcomes} == {"everything on", switch}
    assert (found.position_gamma is None, found.channel_gamma is None) == (lacking == "position", lacking == "channel")


def test_without_a_front_door_it_is_said(subjects, pictures) -> None:
    found = front_door_switches(subjects[0], pictures, compute_features(subjects[0], pictures))
    assert isinstance(found, Unavailable)
    assert "no front-door head" in found.reason


def test_nothing_is_changed_and_the_result_is_read_back_equal(subjects, pictures, tmp_path) -> None:
    method = subjects[1].method
    state = {name: value.clone() for name, value in method.state_dict().items()}
    found = front_door_switches(subjects[1], pictures, compute_features(subjects[1], pictures))
    assert all(torch.equal(value, state[name]) for name, value in method.state_dict().items())
    save_result(found, tmp_path / "switches.json")
    again = load_result(FrontDoorSwitches, tmp_path / "switches.json")
    assert [one.accuracy for one in again.outcomes] == [one.accuracy for one in found.outcomes]
    assert [one.cells for one in again.outcomes] == [one.cells for one in found.outcomes]
    assert np.array_equal(again.outcomes[2].predicted, found.outcomes[2].predicted)
    assert again.maps is None


def test_maps_with_everything_on_are_grad_cam_of_the_head(subjects, pictures, monkeypatch) -> None:
    subject, places = subjects[1], (3, 0, 7)
    features = compute_features(subject, pictures)
    found = front_door_switches(subject, pictures, features, places=places).maps
    assert found.names == ("everything on", "position off", "channel off", "both off")
    assert found.keys == tuple(pictures.keys[place] for place in places)
    targets = features.heads["front_door"][list(places)].argmax(1)
    assert found.explained.tolist() == found.predicted[0].tolist() == targets.tolist()
    monkeypatch.setattr(type(subject.method), "prediction_heads", ("front_door",))
    chosen = torch.from_numpy(features.maps[list(places)])
    expected = class_activations(subject.method, chosen, torch.from_numpy(targets), names=("grad-cam",))["grad-cam"]
    np.testing.assert_allclose(found.values[0], expected.clamp(min=0).numpy(), rtol=1e-4, atol=1e-6)


def test_each_switch_moves_the_maps_of_its_own_attention(subjects, pictures, gammas) -> None:
    gammas(3.0, 0.0)
    subject = subjects[1]
    found = front_door_switches(subject, pictures, compute_features(subject, pictures), places=range(4))
    on, position, channel, both = found.maps.values
    assert np.abs(on - position).max() > 1e-3 * np.abs(on).max()
    np.testing.assert_allclose(channel, on, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(both, position, rtol=1e-4, atol=1e-6)
    heads = {one.name: one.predicted[:4] for one in found.outcomes if one.reads == "front_door"}
    for row, name in enumerate(found.maps.names):
        assert found.maps.predicted[row].tolist() == heads[name].tolist()


def test_maps_leave_no_gradients_and_are_read_back_equal(subjects, pictures, tmp_path) -> None:
    subject = subjects[1]
    found = front_door_switches(subject, pictures, compute_features(subject, pictures), places=(1, 2))
    assert all(parameter.grad is None for parameter in subject.method.parameters())
    save_result(found, tmp_path / "switches.json")
    again = load_result(FrontDoorSwitches, tmp_path / "switches.json")
    assert again.maps.keys == found.maps.keys
    np.testing.assert_array_equal(again.maps.values, found.maps.values)
