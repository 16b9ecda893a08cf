from __future__ import annotations

from concept_tuning.figures.detection import DETECTORS, detection_figure


def row(score: str, rho: float, auc: float) -> dict:
    return {"score": score, "rho": rho, "auc": auc, "low": auc - 0.1, "high": min(1.0, auc + 0.2), "runs": [6, 5]}


def test_each_detector_is_a_line_over_rho_with_its_intervals() -> None:
    figure = detection_figure([row("slices.test", 0.8, 0.9), row("slices.test", 0.5, 0.6), row("other", 0.5, 0.1)])
    (line,) = figure.data
    assert line.name == DETECTORS["slices.test"]
    assert list(line.y) == [0.6, 0.9]
    assert [round(float(end), 6) for end in line.error_y.array] == [0.2, 0.1]
    assert all(abs(x - rho) < 0.05 for x, rho in zip(line.x, (0.5, 0.8), strict=True))
    assert "6 runs against 5 clean ones" in line.text[0]


def test_nothing_recorded_is_an_empty_figure() -> None:
    assert not detection_figure([]).data
