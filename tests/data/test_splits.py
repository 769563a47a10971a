"""Splits of a folder or zip: by the names of its folders, and refused where they might leak."""

from __future__ import annotations

import pytest
from made_folders import CONTAINERS, labels, levels, writer

from triptych.config.base import DataConfig
from triptych.data.photos import load_photos
from triptych.data.sources import load_images
from triptych.errors import UserError


@pytest.fixture(params=CONTAINERS)
def make(request, tmp_path):
    """A set of pictures in each kind of container; see :func:`made_folders.writer`."""
    return writer(request.param, tmp_path)


# ---- splits --------------------------------------------------------------------------------------------

TWO_SPLITS = ("train/cat/0.png", "train/dog/0.png", "test/cat/0.png", "test/dog/0.png", "test/dog/1.png")


def test_splits_keep_apart_what_is_trained_on_and_what_is_tested(make):
    path = make(*TWO_SPLITS)
    train, test = (load_images(DataConfig(path=path, split=split), need_labels=True) for split in ("train", "test"))
    assert levels(train) == [0, 1] and labels(train) == ["cat", "dog"]
    assert levels(test) == [2, 3, 4] and labels(test) == ["cat", "dog", "dog"]
    for split in ("validation", "anything"):
        with pytest.raises(UserError, match=rf"data\.split '{split}' does not exist.*\['test', 'train'\]"):
            load_images(DataConfig(path=path, split=split))
    with pytest.raises(UserError, match="Set validation_split to one of them"):
        load_images(DataConfig(path=path, split="validation"), split_setting="validation_split")


def test_without_split_folders_there_is_only_train(make):
    path = make("cat/0.png", "dog/1.png")
    assert len(load_images(DataConfig(path=path))) == 2
    with pytest.raises(UserError, match=r"'test' does not exist.*\['train'\]"):
        load_images(DataConfig(path=path, split="test"))


@pytest.mark.parametrize(
    ("folder", "split"), [("Train", "train"), ("training", "train"), ("val", "validation"), ("Eval", "test")]
)
def test_splits_go_by_the_names_the_hub_knows(make, folder, split):
    path = make(f"{folder}/cat/0.png", f"{folder}/dog/1.png")
    for name in (split, folder):
        assert levels(load_images(DataConfig(path=path, split=name))) == [0, 1]


def test_classes_have_the_same_ids_in_every_split(make):
    path = make("train/ant/0.png", "train/cat/0.png", "train/dog/0.png", "test/cat/0.png", "test/dog/0.png")
    test = load_images(DataConfig(path=path, split="test"), need_labels=True)
    assert test.class_names == ["ant", "cat", "dog"] and labels(test) == ["cat", "dog"]


def test_splits_without_classes_need_no_labels(make):
    path = make("train/0.png", "train/1.png", "test/0.png")
    for load in (load_images, load_photos):
        images = load(DataConfig(path=path, split="test"))
        assert len(images) == 1 and not images.has_labels and images.class_names is None
    with pytest.raises(UserError, match=r"has no labels.*all lie in one folder"):
        load_images(DataConfig(path=path), need_labels=True)


def test_a_picture_beside_the_splits_is_named(make, capsys):
    path = make(*TWO_SPLITS, "cover.png")
    assert len(load_images(DataConfig(path=path))) == 2
    assert "passed over: 1 outside the split folders" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"it has \['test', 'train'\] \(1 images lie outside these folders\)"):
        load_images(DataConfig(path=path, split="validation"))


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (("bus/0.png", "car/0.png", "train/0.png"), ["bus", "car", "train"]),
        (("cat/0.png", "cat/train.png", "dog/test.png", "dog/dog test 3.png"), ["cat", "dog"]),
        (("dogs/0.png", "train_cats/0.png", "test-cats/0.png"), ["dogs", "test-cats", "train_cats"]),
        (("dogs/evaluation-1.png", "latest/val.png"), ["dogs", "latest"]),
    ],
)
def test_a_word_in_a_name_makes_no_split(make, names, classes):
    images = load_images(DataConfig(path=make(*names)), need_labels=True)
    assert len(images) == len(names) and images.class_names == classes


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("train/cat/0.png", "test/cat/0.png", "more/cat/0.png"), "test, train look like splits.*more"),
        (("train/0.png", "test/0.png", "bus/0.png"), "look like splits.*bus"),
        (("test/cat/0.png", "extra/cat/0.png"), "test look like splits.*extra"),
        (("cat/train/0.png", "cat/test/1.png", "dog/train/0.png"), "splits test and train lie inside other folders"),
        (("a/x/train/0.png", "b/x/test/1.png", "b/x/dev/2.png"), "lie inside other folders"),
        (("training_set/cat/0.png", "test_set/cat/1.png"), "test_set and training_set look like splits"),
        (("seg_train/seg_train/cat/0.png", "seg_test/seg_test/cat/1.png"), "seg_test and seg_train look like splits"),
        (("train2017/0.png", "val2017/1.png", "notes/0.png"), "train2017 and val2017 look like splits"),
        (("trainA/0.png", "trainB/1.png", "testA/2.png"), "testA and trainA look like splits"),
        (("Train /0.png", "test /1.png"), "look like splits"),
        (("cat/train_images/0.png", "dog/test_images/1.png"), "lie inside other folders"),
    ],
)
def test_what_might_leak_is_refused(make, names, message):
    with pytest.raises(UserError, match=message):
        load_images(DataConfig(path=make(*names)))


@pytest.mark.parametrize("inside", ["", "train/"])
@pytest.mark.parametrize("names", [("train_cats", "test_dogs"), ("trained", "tested"), ("contest-1", "contrain-1")])
def test_classes_whose_names_have_a_split_and_more_in_them(make, names, inside):
    path = make(*(f"{inside}{name}/0.png" for name in names))
    assert load_images(DataConfig(path=path), need_labels=True).class_names == sorted(names)


def test_classes_that_are_alike_but_for_the_word_of_a_split(make):
    path = make("train/train_cats/0.png", "train/test_cats/1.png")  # as the message advises
    assert load_images(DataConfig(path=path), need_labels=True).class_names == ["test_cats", "train_cats"]
