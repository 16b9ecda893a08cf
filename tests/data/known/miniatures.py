"""Known data sets in small: a few pictures each, laid out on disk as the official files are."""

from __future__ import annotations

import gzip
import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from concept_tuning.config import DataConfig
from concept_tuning.data.known.opening import known_table
from concept_tuning.data.table import ImageTable


def opened(name: str, root: Path, **settings: object) -> ImageTable:
    return known_table(DataConfig(source=name, root=str(root), **settings))


def picture(path: Path, *, size: tuple[int, int] = (20, 16)) -> Path:
    """Write a picture whose colour is drawn from its name; size is width and height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = tuple(hashlib.sha256(path.name.encode()).digest()[:3])
    Image.new("RGB", size, colour).save(path, format="JPEG")
    return path


def text(path: Path, lines: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def cars(root: Path) -> None:
    base = root / "stanford_cars"
    (base / "devkit").mkdir(parents=True)
    names = np.array(["Audi TT", "Fiat 500"], dtype=object)
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": names})
    for split, file in (("train", "devkit/cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
        rows = np.zeros(4, dtype=[("class", object), ("fname", object)])
        for n in range(4):
            rows[n] = (n % 2 + 1, f"{n + 1:05d}.jpg")
            picture(base / f"cars_{split}" / f"{n + 1:05d}.jpg")
        savemat(base / file, {"annotations": rows})


def aircraft(root: Path) -> None:
    data = root / "fgvc-aircraft-2013b" / "data"
    text(data / "variants.txt", ["Boeing 737-700", "A 380"])
    for n, split in enumerate(("train", "val", "test")):
        lines = [f"{1000 + 10 * n + k} {('Boeing 737-700', 'A 380')[k % 2]}" for k in range(4)]
        text(data / f"images_variant_{split}.txt", lines)
        for line in lines:
            picture(data / "images" / f"{line.split()[0]}.jpg")


def dtd(root: Path) -> None:
    base = root / "dtd" / "dtd"
    for n, split in enumerate(("train", "val", "test")):
        lines = [f"{name}/{name}_{10 * n + k:04d}.jpg" for name in ("banded", "woven") for k in range(2)]
        text(base / "labels" / f"{split}1.txt", lines)
        for line in lines:
            picture(base / "images" / line)


def flowers(root: Path) -> None:
    base = root / "flowers-102"
    count = 3 * 102
    for number in range(1, count + 1):
        picture(base / "jpg" / f"image_{number:05d}.jpg", size=(2, 2))
    savemat(base / "imagelabels.mat", {"labels": np.arange(count)[None] % 102 + 1})
    ids = np.arange(1, count + 1).reshape(3, 102)
    savemat(base / "setid.mat", {"trnid": ids[:1], "valid": ids[1:2], "tstid": ids[2:]})


def pets(root: Path) -> None:
    base = root / "oxford-iiit-pet"
    for n, split in enumerate(("trainval", "test")):
        lines = [
            f"{breed}_{10 * n + k} {label} 1 1"
            for breed, label in (("Abyssinian", 1), ("great_pyrenees", 3))
            for k in range(2)
        ]
        text(base / "annotations" / f"{split}.txt", lines)
        for line in lines:
            picture(base / "images" / f"{line.split()[0]}.jpg")


def food(root: Path) -> None:
    base = root / "food-101"
    for n, split in enumerate(("train", "test")):
        names = {dish: [f"{dish}/{10 * n + k}" for k in range(2)] for dish in ("waffles", "apple_pie")}
        text(base / "meta" / f"{split}.json", [json.dumps(names)])
        for paths in names.values():
            for path in paths:
                picture(base / "images" / f"{path}.jpg")


def caltech(root: Path) -> None:
    for name in ("BACKGROUND_Google", "accordion", "Faces"):
        for n in range(1, 4):
            picture(root / "caltech101" / "101_ObjectCategories" / name / f"image_{n:04d}.jpg")


def eurosat(root: Path) -> None:
    for name in ("Forest", "River"):
        for n in range(1, 4):
            picture(root / "eurosat" / "2750" / name / f"{name}_{n}.jpg")


def imagenet(root: Path) -> None:
    for split in ("train", "val"):
        for name in ("n01440764", "n01443537"):
            for n in range(2):
                picture(root / split / name / f"{name}_{split}{n}.JPEG")


def cifar10(root: Path) -> None:
    base = root / "cifar-10-batches-py"
    base.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"):
        data = rng.integers(0, 256, (10, 3072), dtype=np.uint8)
        (base / name).write_bytes(pickle.dumps({"data": data, "labels": list(range(10))}))
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class {n}" for n in range(10)]}))


def cifar100(root: Path) -> None:
    base = root / "cifar-100-python"
    base.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, count in (("train", 6), ("test", 3)):
        data = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
        fine = [n % 3 for n in range(count)]
        (base / name).write_bytes(pickle.dumps({"data": data, "fine_labels": fine, "coarse_labels": [0] * count}))
    (base / "meta").write_bytes(pickle.dumps({"fine_label_names": ["apple", "bear", "cup"]}))


def fashion(root: Path, *, folder: str = "FashionMNIST/raw", zipped: bool = False) -> None:
    (root / folder).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", 20), ("t10k", 10)):
        head = bytes([0, 0, 8, 3]) + np.array([count, 28, 28], dtype=">i4").tobytes()
        images = head + rng.integers(0, 256, (count, 28, 28), dtype=np.uint8).tobytes()
        labels = bytes([0, 0, 8, 1]) + np.array([count], dtype=">i4").tobytes() + bytes(n % 10 for n in range(count))
        for name, content in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
            file = root / folder / f"{part}-{name}{'.gz' if zipped else ''}"
            file.write_bytes(gzip.compress(content) if zipped else content)


def cub(root: Path) -> None:
    """Write two species of four birds; of each, the last two are for testing. The beak is hidden on the second."""
    base = root / "CUB_200_2011"
    species = ("001.Black_footed_Albatross", "002.Laysan_Albatross")
    paths = [f"{name}/{name[4:]}_{n:04d}.jpg" for name in species for n in range(4)]
    for path in paths:
        picture(base / "images" / path, size=(60, 40))
    numbers = range(1, len(paths) + 1)
    text(base / "images.txt", [f"{n} {path}" for n, path in zip(numbers, paths, strict=True)])
    text(base / "classes.txt", [f"{n} {name}" for n, name in enumerate(species, start=1)])
    text(base / "image_class_labels.txt", [f"{n} {(n - 1) // 4 + 1}" for n in numbers])
    text(base / "train_test_split.txt", [f"{n} {int((n - 1) % 4 < 2)}" for n in numbers])
    text(base / "bounding_boxes.txt", [f"{n} 10.0 5.0 40.0 30.0" for n in numbers])
    text(base / "parts" / "parts.txt", ["1 beak", "2 left eye"])
    lines = [(f"{n} 1 12.0 20.0 1" if n != 2 else f"{n} 1 0.0 0.0 0", f"{n} 2 30.5 20.5 1") for n in numbers]
    text(base / "parts" / "part_locs.txt", [line for pair in lines for line in pair])


def waterbirds(root: Path) -> None:
    base = root / "waterbird_complete95_forest2water2"
    lines = ["img_id,img_filename,y,split,place,place_filename"]
    for split in range(3):
        for y in range(2):
            for place in range(2):
                name = f"00{y}.Bird/bird_{split}{y}{place}.jpg"
                picture(base / name)
                lines.append(f'{len(lines)},{name},{y},{split},{place},"/b/bamboo, forest/1.jpg"')
    text(base / "metadata.csv", lines)


ISIC_CODES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")


def isic(root: Path, *, part: str = "Training", lesions: int = 10, unknown: bool = False) -> None:
    """Write ``lesions`` lesions of each diagnosis with two pictures each, at two places and one that is not told."""
    truth, about = [",".join(("image", *ISIC_CODES))], ["image,age_approx,anatom_site_general,lesion_id,sex"]
    for code in range(8 + unknown):
        for lesion in range(lesions):
            for view in range(2):
                image = f"ISIC_{part[0]}{code}{lesion:02d}{view}"
                picture(root / f"ISIC_2019_{part}_Input" / f"{image}.jpg")
                truth.append(",".join((image, *("1.0" if n == code else "0.0" for n in range(9)))))
                about.append(f"{image},55.0,{('anterior torso', 'head/neck', '')[lesion % 3]},{part}_{code}_{lesion},")
    text(root / f"ISIC_2019_{part}_GroundTruth.csv", truth)
    text(root / f"ISIC_2019_{part}_Metadata.csv", about)


MINIATURES: dict[str, Callable[[Path], None]] = {
    "cub200": cub,
    "stanford-cars": cars,
    "aircraft": aircraft,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "caltech101": caltech,
    "dtd": dtd,
    "flowers102": flowers,
    "oxford-pets": pets,
    "food101": food,
    "eurosat": eurosat,
    "fashion-mnist": fashion,
    "isic": isic,
    "waterbirds": waterbirds,
    "imagenet-folder": imagenet,
}
