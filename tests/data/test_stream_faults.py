"""Photographs that are missing, cut off or no photographs: an error by name, or left out by name."""

import json
import re

import pytest

import adamlab.data
from adamlab.data import DataError
from adamlab.data.pixels import center_crop
from adamlab.data.stream import Source, read
from tests.data import photos
from tests.data.streams import SIZE, epochs, hashes, joined, plan, stored


def test_a_corrupt_image_is_an_error_or_left_out_by_name(tmp_path):
    train, test = photos.damaged(tmp_path)
    strict = adamlab.data.load("damaged", tmp_path, workers=0)
    numbers = {"train_images": 32, "batch_size": 8, "test_images": 5, "test_batch": 5}
    with pytest.raises(DataError) as refused:
        epochs(Source(plan(strict, **numbers), 1))
    said = re.match(
        r"record (\d+) of (.*-train.array_record-(\d+)-of-00002), file name (photo_5_\d.jpg)", str(refused.value)
    )
    assert said, refused.value
    # Its place among all records: those of the shards before it come first.
    shards = json.loads((tmp_path / "damaged" / "1.0.0" / "dataset_info.json").read_text())["splits"]
    sizes = [int(n) for split in shards if split["name"] == "train" for n in split["shardLengths"]]
    place = int(said[1]) + sum(sizes[: int(said[3])])
    assert stored(strict, tmp_path, "train")[place][0] == train[said[4]][0]

    lenient = adamlab.data.load("damaged", tmp_path, workers=0, skip_corrupt=True)
    assert "left out" in lenient.note
    ((training, evaluation),) = epochs(Source(plan(lenient, **numbers), 1))
    skipped = {name for piece in training for name in piece["skipped"]}
    assert len(skipped) == 2
    assert all(any(f"file name photo_5_{n}.jpg, cannot be decoded" in name for name in skipped) for n in (7, 8))
    # Batches stay whole: 32 images, of which the 30 that can be decoded are all there, and the next ones stand in.
    assert [len(piece["image"]) for piece in training] == 4 * [8]
    order = stored(lenient, tmp_path, "train")
    broken = {train["photo_5_7.jpg"][0], train["photo_5_8.jpg"][0]}
    expected = []
    for place in range(32):
        while order[place % 32][0] in broken:
            place += 1
        expected.append(center_crop(order[place % 32][0], SIZE))
    assert hashes(joined(training)) == hashes(expected)
    # A test image that cannot be decoded does not count, and nothing counts for it.
    mask = joined(evaluation, "mask")
    assert mask.sum() == 4
    good = [center_crop(x, SIZE) for x, _ in stored(lenient, tmp_path, "test") if x != test["photo_6_2.jpg"][0]]
    assert hashes(joined(evaluation)[mask]) == hashes(good)


def test_a_record_is_named_by_its_place_in_its_file(snapshots):
    dataset = adamlab.data.load(photos.NAME, snapshots, workers=0)
    records, source = dataset.train, Source(plan(dataset), 1)
    expected = [
        f"record {n} of {path}" for path, size in zip(records.paths, records.sizes, strict=True) for n in range(size)
    ]
    assert len(records.sizes) > 1
    assert [source._where(records, place) for place in range(len(expected))] == expected


def test_a_file_that_is_away_is_no_corrupt_image(snapshots, tmp_path):
    """Of its images others would stand in, and a test set would be a part of it."""
    folder = copied(snapshots, tmp_path)
    dataset = adamlab.data.load(photos.NAME, tmp_path, workers=0, skip_corrupt=True)
    shard = sorted(folder.glob("*-train.array_record-*"))[0]
    shard.unlink()
    with pytest.raises(DataError, match=r"record \d+ of .* cannot be read: "):
        epochs(Source(plan(dataset), 1))


def test_no_image_that_is_held_out_stands_in(tmp_path):
    """Of those to train on the last one cannot be decoded: the first one comes after it, not one to evaluate on."""
    train, _ = photos.damaged(tmp_path)
    dataset = adamlab.data.load("damaged", tmp_path, workers=0, skip_corrupt=True)
    order, broken = stored(dataset, tmp_path, "train"), {train[f"photo_5_{n}.jpg"][0] for n in (7, 8)}
    last = next(place for place, (encoded, _) in enumerate(order) if encoded in broken)
    numbers = {"train_images": last + 1, "batch_size": last + 1, "test_images": 31 - last, "test_batch": 31 - last}
    ((training, evaluation),) = epochs(Source(plan(dataset, evaluate_on="validation", **numbers), 1))
    good = [center_crop(encoded, SIZE) for encoded, _ in order[:last]]
    assert hashes(joined(training)) == hashes([*good, good[0]])
    assert not hashes(joined(training)) & hashes(joined(evaluation)[joined(evaluation, "mask")])


def test_a_label_that_is_none_is_an_error_by_name(tmp_path):
    """Such as the -1 of a test image whose label is secret, which would be the last class."""
    train = photos.photos(4, seed=5)
    train["photo_5_2.jpg"] = (train["photo_5_2.jpg"][0], -1)
    photos.write(tmp_path, {"train": train, "test": photos.photos(3, seed=6)}, shards=1, name="secret")
    dataset = adamlab.data.load("secret", tmp_path, workers=0)
    source = Source(plan(dataset, train_images=4, batch_size=4, test_images=3, test_batch=3), 1)
    with pytest.raises(DataError, match=r"file name photo_5_2.jpg, cannot be decoded: label -1 of 3 classes"):
        source[0]


def test_a_worker_reports_a_corrupt_image_too(tmp_path):
    photos.damaged(tmp_path)
    dataset = adamlab.data.load("damaged", tmp_path, workers=1)
    numbers = {"train_images": 32, "batch_size": 8, "test_images": 5, "test_batch": 5}
    with pytest.raises(DataError, match=r"file name photo_5_[78].jpg, cannot be decoded"):
        list(read(Source(plan(dataset, **numbers), 1)))


def test_where_no_image_can_be_decoded_leaving_out_ends(tmp_path):
    junk = {f"{number}.jpg": (b"junk", 0) for number in range(4)}
    photos.write(tmp_path, {"train": junk, "test": junk}, shards=1, name="junk")
    dataset = adamlab.data.load("junk", tmp_path, workers=0, skip_corrupt=True)
    source = Source(plan(dataset, train_images=4, batch_size=4, test_images=4, test_batch=4), 1)
    with pytest.raises(DataError, match="no training image of junk can be decoded"):
        source[0]


def copied(snapshots, folder):
    target = folder / photos.NAME / "1.0.0"
    target.mkdir(parents=True)
    for path in (snapshots / photos.NAME / "1.0.0").iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def edit_info(folder, **entries):
    path = folder / "dataset_info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_what_is_not_there_or_not_right_is_said_in_one_line(snapshots, tmp_path):
    def refusal(name=photos.NAME):
        with pytest.raises(DataError) as refused:
            adamlab.data.load(name, tmp_path)
        assert "\n" not in str(refused.value)
        return str(refused.value)

    for part in (f"imagenet2012 is not prepared in {tmp_path}", "by hand", "docs/imagenet.md", "--data-dir"):
        assert part in refusal("imagenet2012")
    for part in (f"cifar01 is not prepared in {tmp_path}", "auto, cifar10, cifar100, digits, synthetic"):
        assert part in refusal("cifar01")
    assert "cannot be read" in refusal("../snapshots")

    folder = copied(snapshots, tmp_path)
    shard = sorted(folder.glob("*-train.array_record-*"))[1]
    shard.rename(tmp_path / "elsewhere")
    assert f"lacks 1 of the 3 files of train, first {shard}" in refusal()
    (tmp_path / "elsewhere").rename(shard)
    edit_info(folder, fileFormat="tfrecord")
    assert "is prepared as tfrecord, not array_record" in refusal()
    edit_info(folder, fileFormat="array_record", supervisedKeys=None)
    assert "is no image classification set" in refusal()
    edit_info(folder, supervisedKeys={"tuple": {"items": [{"featureKey": "image"}, {"featureKey": "label"}]}})
    features = json.loads((folder / "features.json").read_text())
    image = features["featuresDict"]["features"]["image"]["image"]
    image |= {"dtype": "uint16", "encodingFormat": "png"}
    (folder / "features.json").write_text(json.dumps(features))
    assert "of 8 bits a channel" in refusal()
    (folder / "dataset_info.json").write_text("{")
    assert "cannot be read" in refusal()


def test_a_cut_off_file_is_said_by_name(snapshots, tmp_path):
    folder = copied(snapshots, tmp_path)
    shard = sorted(folder.glob("*-train.array_record-*"))[0]
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    dataset = adamlab.data.load(photos.NAME, tmp_path, workers=0)
    with pytest.raises(DataError, match=shard.name):
        epochs(Source(plan(dataset), 1))
