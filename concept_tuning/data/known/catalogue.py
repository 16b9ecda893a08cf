"""What is known of each data set that has a name: content, licence, splits, layout on disk, and where to get it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Known:
    """A data set with a name.

    Attributes:
        name: What ``data.source`` is set to.
        description: What is in it.
        licence: Terms of use, in a few words.
        splits: Which splits are official, in words.
        folder: Its own folder below ``data.root``; empty where its files lie in ``data.root`` itself.
        layout: Lines that show the expected files, by paths below ``data.root``.
        needs: Paths below ``data.root`` that must be there.
        address: Where the files are had by hand.
        downloads: Whether ``data.download`` can fetch it.
        package: The Python package that reads it, or None.
    """

    name: str
    description: str
    licence: str
    splits: str
    folder: str = ""
    layout: tuple[str, ...]
    needs: tuple[str, ...] = ()
    address: str
    downloads: bool = True
    package: str | None = None

    @property
    def note(self) -> str:
        """Licence and splits in one text."""
        return f"{self.licence}. {self.splits}."


_TRAIN_TEST = "Splits train and test are given, validation is drawn from train"
_ALL_GIVEN = "Splits train, val and test are given"
_NONE_GIVEN = "No splits are given"

KNOWN: tuple[Known, ...] = (
    Known(
        name="cub200",
        description="Caltech-UCSD Birds 200-2011: 11,788 photographs of 200 bird species, with bounding boxes and the "
        "places of 15 parts as masks.",
        licence="Pictures from the web, for non-commercial research and education",
        splits=_TRAIN_TEST,
        folder="CUB_200_2011",
        layout=(
            "CUB_200_2011/images/001.Black_footed_Albatross/*.jpg",
            "CUB_200_2011/images.txt, classes.txt, image_class_labels.txt, train_test_split.txt",
            "CUB_200_2011/bounding_boxes.txt",
            "CUB_200_2011/parts/parts.txt, parts/part_locs.txt",
        ),
        needs=tuple(
            f"CUB_200_2011/{name}"
            for name in ("images", "images.txt", "classes.txt", "image_class_labels.txt", "train_test_split.txt")
        ),
        address="https://data.caltech.edu/records/65de6-vp158",
    ),
    Known(
        name="stanford-cars",
        description="Stanford Cars: 16,185 photographs of 196 models of cars.",
        licence="For non-commercial research",
        splits=_TRAIN_TEST,
        folder="stanford_cars",
        layout=(
            "stanford_cars/cars_train/*.jpg and cars_test/*.jpg",
            "stanford_cars/devkit/cars_meta.mat and cars_train_annos.mat",
            "stanford_cars/cars_test_annos_withlabels.mat",
        ),
        needs=(
            "stanford_cars/cars_train",
            "stanford_cars/cars_test",
            "stanford_cars/devkit/cars_meta.mat",
            "stanford_cars/devkit/cars_train_annos.mat",
            "stanford_cars/cars_test_annos_withlabels.mat",
        ),
        address="https://github.com/pytorch/vision/issues/7545 (the first address is gone; copies are named there)",
        downloads=False,
    ),
    Known(
        name="aircraft",
        description="FGVC-Aircraft 2013b: 10,000 photographs of 100 variants of aircraft.",
        licence="For non-commercial research",
        splits=_ALL_GIVEN,
        folder="fgvc-aircraft-2013b",
        layout=(
            "fgvc-aircraft-2013b/data/images/*.jpg",
            "fgvc-aircraft-2013b/data/variants.txt",
            "fgvc-aircraft-2013b/data/images_variant_train.txt, images_variant_val.txt, images_variant_test.txt",
        ),
        needs=(
            "fgvc-aircraft-2013b/data/images",
            "fgvc-aircraft-2013b/data/variants.txt",
            *(f"fgvc-aircraft-2013b/data/images_variant_{split}.txt" for split in ("train", "val", "test")),
        ),
        address="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/",
    ),
    Known(
        name="cifar10",
        description="CIFAR-10: 60,000 pictures of 32 x 32 pixels in 10 classes.",
        licence="No licence stated",
        splits=_TRAIN_TEST,
        folder="cifar-10-batches-py",
        layout=("cifar-10-batches-py/data_batch_1 to data_batch_5, test_batch, batches.meta",),
        needs=(
            *(f"cifar-10-batches-py/data_batch_{number}" for number in range(1, 6)),
            "cifar-10-batches-py/test_batch",
            "cifar-10-batches-py/batches.meta",
        ),
        address="https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
    Known(
        name="cifar100",
        description="CIFAR-100: 60,000 pictures of 32 x 32 pixels in 100 classes.",
        licence="No licence stated",
        splits=_TRAIN_TEST,
        folder="cifar-100-python",
        layout=("cifar-100-python/train, test, meta",),
        needs=("cifar-100-python/train", "cifar-100-python/test", "cifar-100-python/meta"),
        address="https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
    Known(
        name="caltech101",
        description="Caltech-101: 8,677 photographs of 101 kinds of objects, without the background class.",
        licence="CC BY 4.0",
        splits=_NONE_GIVEN,
        folder="caltech101",
        layout=("caltech101/101_ObjectCategories/accordion/image_0001.jpg",),
        needs=("caltech101/101_ObjectCategories",),
        address="https://data.caltech.edu/records/mzrjq-6wc02",
    ),
    Known(
        name="dtd",
        description="Describable Textures: 5,640 photographs of 47 textures; the first of its ten partitions.",
        licence="For research",
        splits=_ALL_GIVEN,
        folder="dtd",
        layout=(
            "dtd/dtd/images/banded/banded_0002.jpg",
            "dtd/dtd/labels/train1.txt, val1.txt, test1.txt",
        ),
        needs=("dtd/dtd/images", *(f"dtd/dtd/labels/{split}1.txt" for split in ("train", "val", "test"))),
        address="https://www.robots.ox.ac.uk/~vgg/data/dtd/",
    ),
    Known(
        name="flowers102",
        description="Oxford Flowers: 8,189 photographs of 102 kinds of flowers.",
        licence="No licence stated",
        splits=_ALL_GIVEN,
        folder="flowers-102",
        layout=("flowers-102/jpg/image_00001.jpg", "flowers-102/imagelabels.mat and setid.mat"),
        needs=("flowers-102/jpg", "flowers-102/imagelabels.mat", "flowers-102/setid.mat"),
        address="https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
    ),
    Known(
        name="oxford-pets",
        description="Oxford-IIIT Pets: 7,349 photographs of 37 breeds of cats and dogs.",
        licence="CC BY-SA 4.0",
        splits=_TRAIN_TEST,
        folder="oxford-iiit-pet",
        layout=(
            "oxford-iiit-pet/images/Abyssinian_1.jpg",
            "oxford-iiit-pet/annotations/trainval.txt and test.txt",
        ),
        needs=(
            "oxford-iiit-pet/images",
            "oxford-iiit-pet/annotations/trainval.txt",
            "oxford-iiit-pet/annotations/test.txt",
        ),
        address="https://www.robots.ox.ac.uk/~vgg/data/pets/",
    ),
    Known(
        name="food101",
        description="Food-101: 101,000 photographs of 101 dishes.",
        licence="Pictures from Foodspotting, for scientific use",
        splits=_TRAIN_TEST,
        folder="food-101",
        layout=("food-101/images/apple_pie/1005649.jpg", "food-101/meta/train.json and test.json"),
        needs=("food-101/images", "food-101/meta/train.json", "food-101/meta/test.json"),
        address="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
    ),
    Known(
        name="eurosat",
        description="EuroSAT: 27,000 satellite pictures of 64 x 64 pixels in 10 kinds of land use.",
        licence="MIT",
        splits=_NONE_GIVEN,
        folder="eurosat",
        layout=("eurosat/2750/Forest/Forest_1.jpg",),
        needs=("eurosat/2750",),
        address="https://github.com/phelber/eurosat",
    ),
    Known(
        name="fashion-mnist",
        description="Fashion-MNIST: 70,000 grey pictures of 28 x 28 pixels in 10 kinds of clothes.",
        licence="MIT",
        splits=_TRAIN_TEST,
        folder="FashionMNIST",
        layout=(
            "FashionMNIST/raw/train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, "
            "t10k-labels-idx1-ubyte",
            "or the four files there or in data.root itself, with or without .gz: Debian's package "
            "dataset-fashion-mnist puts them into /usr/share/datasets/fashion-mnist",
        ),
        address="https://github.com/zalandoresearch/fashion-mnist",
    ),
    Known(
        name="isic",
        description="ISIC 2019: 25,331 photographs of 8 kinds of skin lesions; groups are the places on the body.",
        licence="CC BY-NC 4.0",
        splits="The test split is given where its labels are there; otherwise, as for validation, whole lesions are "
        "drawn from training",
        layout=(
            "ISIC_2019_Training_Input/ISIC_0000000.jpg",
            "ISIC_2019_Training_GroundTruth.csv and ISIC_2019_Training_Metadata.csv",
            "and perhaps ISIC_2019_Test_Input, ISIC_2019_Test_GroundTruth.csv, ISIC_2019_Test_Metadata.csv",
        ),
        needs=(
            "ISIC_2019_Training_Input",
            "ISIC_2019_Training_GroundTruth.csv",
            "ISIC_2019_Training_Metadata.csv",
        ),
        address="https://challenge.isic-archive.com/data/#2019",
        downloads=False,
    ),
    Known(
        name="waterbirds",
        description="Waterbirds: 11,788 birds of CUB pasted on land or water, the shortcut; groups are the "
        "backgrounds.",
        licence="Made of CUB and Places, for research",
        splits="Splits train, val and test are given; val and test are balanced over the backgrounds",
        folder="waterbird_complete95_forest2water2",
        layout=(
            "waterbird_complete95_forest2water2/metadata.csv",
            "waterbird_complete95_forest2water2/001.Black_footed_Albatross/*.jpg",
        ),
        needs=("waterbird_complete95_forest2water2/metadata.csv",),
        address="https://nlp.stanford.edu/data/dro/waterbird_complete95_forest2water2.tar.gz",
        downloads=False,
    ),
    Known(
        name="imagenet-folder",
        description="ImageNet-1k or a part of it, unpacked into class folders.",
        licence="ImageNet's terms of access, for non-commercial research",
        splits="Its val is the test split, since its test has no labels; validation is drawn from train",
        layout=(
            "train/n01440764/*.JPEG and val/n01440764/*.JPEG",
            "and perhaps meta.bin, torchvision's file of the classes' names",
        ),
        needs=("train", "val"),
        address="https://image-net.org/download.php",
        downloads=False,
    ),
    Known(
        name="hf:owner/name",
        description="A picture data set of the Hugging Face Hub; hf:owner/name:subset takes one of its subsets.",
        licence="Each has its own licence",
        splits="Its splits train, validation and test are used as far as it has them",
        layout=("owner/name as a folder, or else the cache of the package datasets",),
        address="https://huggingface.co/datasets",
        package="datasets",
    ),
)

BY_NAME = {known.name: known for known in KNOWN}
