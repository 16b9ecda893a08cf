"""One picture that tells two runs apart, with what each says and where it looks, for a first page.

Read back without torch, so that a page that shows nothing else opens at once.
"""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from concept_tuning.diagnostics.results import RESULT, Array


@dataclass(frozen=True, kw_only=True, config=RESULT)
class ShowcaseRun:
    """What one run makes of the picture.

    Attributes:
        name: Of the run.
        method: How it was fine-tuned.
        probabilities: (C,) float32.
        predicted: The class it says, 0..C-1.
        values: (s, s) float32 attribution map 0..1 of that class.
        outside: Share of the map outside the object, 0..1; None where the data has no masks.
        accuracy: Share of the test pictures it has right, 0..1.
    """

    name: str
    method: str
    probabilities: Array
    predicted: int
    values: Array
    outside: float | None
    accuracy: float


@dataclass(frozen=True, kw_only=True, config=RESULT)
class Showcase:
    """A picture and two runs.

    Attributes:
        key: Name of the picture.
        image: (s, s, 3) uint8 RGB.
        label: Its class, 0..C-1.
        group: Name of its group; None where there are none.
        usual: The class that is most frequent in that group in training, 0..C-1; None without groups.
        class_names: The C classes.
        map_name: Which attribution map is shown.
        pictures: Number of test pictures that accuracies are of.
        runs: The two runs.
    """

    key: str
    image: Array
    label: int
    group: str | None
    usual: int | None
    class_names: tuple[str, ...]
    map_name: str
    pictures: int
    runs: tuple[ShowcaseRun, ShowcaseRun]

    @property
    def sentence(self) -> str:
        """What to notice, in a sentence or two."""
        first, second = self.runs
        names = self.class_names
        place = f" before {self.group}" if self.group else ""
        usual = ""
        if self.usual is not None and self.usual != self.label:
            usual = f", where training mostly showed the class {names[self.usual]}"
        text = (
            f"The picture is of the class {names[self.label]}{place}{usual}: {first.name} says "
            f"{names[first.predicted]}, {second.name} says {names[second.predicted]}"
        )
        if first.outside is None or second.outside is None:
            return f"{text}."
        return (
            f"{text}. Of the first map, {100 * first.outside:.0f} % lies outside the object, of the second "
            f"{100 * second.outside:.0f} %."
        )
