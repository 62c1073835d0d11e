"""The images of a run from disk, in the order in which it wants them, decoded and cut by Grain's workers.

What comes out is a pure function of seed, epoch and image, whatever the number of workers: a run that is continued,
also in the middle of an epoch, sees the pixels that it would have seen.
"""

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import UnidentifiedImageError

from adamlab.data.dataset import DataError, Records
from adamlab.data.order import largest_divisor
from adamlab.data.photographs import available_cores
from adamlab.data.pixels import center_crop, random_crop
from adamlab.data.plan import Plan
from adamlab.files import one_line

# Features that name an image, by whichever tensorflow-datasets calls it in a set.
NAMES = ("file_name", "filename", "image/filename", "id")
# Images that a worker hands over at once: enough to hide the handing over, few enough to keep what waits small.
PIECE = 32


@dataclass
class Source:
    """What a process reads from the first epoch on, in pieces: training images, then those to evaluate, and so on.

    Args:
      plan: Which images.
      epochs: After how many it ends.
      start: Pieces that are left out at the beginning.
    """

    plan: Plan
    epochs: int
    start: int = 0
    _readers: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def train_piece(self) -> int:
        """Images in a piece of a step."""
        return largest_divisor(self.plan.share, PIECE)

    @property
    def test_piece(self) -> int:
        """Images in a piece of a batch to evaluate."""
        return largest_divisor(self.plan.test_batch, PIECE)

    def position(self, epoch: int, step: int) -> int:
        """The piece at which a step of an epoch begins, both counted from 0; after the last step, the evaluation."""
        plan = self.plan
        per_step, per_batch = plan.share // self.train_piece, plan.test_batch // self.test_piece
        return epoch * (plan.protocol.steps_per_epoch * per_step + plan.test_batches * per_batch) + step * per_step

    def __len__(self) -> int:
        return self.position(self.epochs, 0) - self.start

    def __getitem__(self, index: int) -> dict[str, Any]:
        """A piece: `image`, uint8 (n, size, size, 3), `label`, int32 (n,), `mask`, bool (n,), and `skipped`, names."""
        plan = self.plan
        epoch, place = divmod(self.start + index, self.position(1, 0))
        test = place - self.position(0, plan.protocol.steps_per_epoch)
        if test < 0:
            step, first = divmod(place * self.train_piece, plan.share)
            places = plan.order(epoch + 1)[step, first : first + self.train_piece]
            return self._read(plan.dataset.train, places, epoch + 1 if plan.protocol.augment else None, substitute=True)
        batch, first = divmod(test * self.test_piece, plan.test_batch)
        places = plan.evaluated(batch)[first : first + self.test_piece]
        return self._read(plan.evaluated_split, places, None, substitute=False)

    def first_training_images(self, count: int) -> dict[str, Any]:
        """Some images of the training split, cut as for evaluation: always the same."""
        return self._read(self.plan.dataset.train, np.arange(count), None, substitute=True)

    def _read(self, records: Records, places: np.ndarray, epoch: int | None, substitute: bool) -> dict[str, Any]:
        """Images at those places, at random in an epoch or their centres; none where the place is below 0.

        For one that cannot be decoded the next one that can stands in, or it is masked, so that no other counts twice.
        """
        plan, size, images = self.plan, self.plan.size, self.plan.protocol.train_images
        piece = {
            "image": np.zeros((len(places), size, size, 3), np.uint8),
            "label": np.zeros(len(places), np.int32),
            "mask": places >= 0,
        }
        skipped = []
        for row in np.flatnonzero(piece["mask"]):
            candidates = [places[row]]
            if substitute:
                candidates = ((places[row] + ahead) % images for ahead in range(images))
            for place in map(int, candidates):
                record = self._fetch(records, place)
                try:
                    key = None if epoch is None else (plan.seed, epoch, 2, place)
                    piece["image"][row], piece["label"][row] = self._decode(record, records, place, key)
                    break
                except DataError as error:
                    if not plan.dataset.skip_corrupt:
                        raise
                    skipped.append(str(error))
            else:
                piece["mask"][row] = False
        if substitute and not piece["mask"].all():
            raise DataError(f"no training image of {plan.dataset.name} can be decoded; last: {skipped[-1]}")
        return piece | {"skipped": tuple(skipped)}

    def _fetch(self, records: Records, place: int) -> bytes:
        """A record as it is stored; an error, also with `--skip-corrupt`, where file or disk does not give it: a file
        server that is away for a minute would leave its images out."""
        try:
            return self._reader(records)[place]
        except MemoryError:
            raise
        except Exception as error:  # whatever array_record raises
            raise DataError(f"{self._where(records, place)} cannot be read: {one_line(error)}") from None

    def _where(self, records: Records, place: int) -> str:
        shard = int(np.searchsorted(np.cumsum(records.sizes), place, "right"))
        return f"record {place - sum(records.sizes[:shard])} of {records.paths[shard]}"

    def _decode(
        self, record: bytes, records: Records, place: int, key: tuple[int, ...] | None
    ) -> tuple[np.ndarray, int]:
        """A record's image cut at random, or its centre, and its label."""
        from tensorflow_datasets.proto import tf_example_pb2

        name = "unknown"
        try:
            features = tf_example_pb2.Example.FromString(record).features.feature  # pyright: ignore[reportAttributeAccessIssue]
            name = next((features[n].bytes_list.value[0].decode() for n in NAMES if n in features), name)
            label = features[records.label].int64_list.value[0]
            if not 0 <= label < self.plan.dataset.num_classes:
                raise ValueError(f"label {label} of {self.plan.dataset.num_classes} classes")
            encoded = features[records.image].bytes_list.value[0]
            if key is None:
                return center_crop(encoded, self.plan.size), label
            return random_crop(encoded, self.plan.size, np.random.default_rng(key)), label
        except MemoryError:
            raise
        except Exception as error:  # whatever protobuf and Pillow raise for what they cannot read
            where = f"{self._where(records, place)}, file name {name}"
            # Pillow's own message would name an object in memory, and so each time another.
            reason = "it is no image" if isinstance(error, UnidentifiedImageError) else one_line(error)
            raise DataError(f"{where}, cannot be decoded: {reason}") from None

    def _reader(self, records: Records) -> Any:
        """Opens each file when it is first needed, in the process that needs it."""
        if records.paths[0] not in self._readers:
            from array_record.python.array_record_data_source import ArrayRecordDataSource

            parts = [f"{path}[0:{size}]" for path, size in zip(records.paths, records.sizes, strict=True)]
            self._readers[records.paths[0]] = ArrayRecordDataSource(parts)
        return self._readers[records.paths[0]]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_readers": {}}


def read(source: Source) -> Iterator[dict[str, Any]]:
    """The pieces of a source in their order, made in Grain's workers; the iterator's end or `close` ends them."""
    import grain
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain 0.2.18 asks for one of its own: github.com/google/grain/issues/1355
    workers = source.plan.dataset.workers
    threads = 1 if workers else available_cores()
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    pieces = grain.MapDataset.source(source).to_iter_dataset(options)
    return iter(pieces.mp_prefetch(grain.MultiprocessingOptions(workers), _start_worker) if workers else pieces)


def _start_worker(worker: int, workers: int) -> None:
    """Ties a worker to its parent, which it ends with, however that ends.

    Ctrl-C and SIGTERM, which a terminal and SLURM send to the whole group, are the parent's to handle: it still wants
    images until it has saved where it stands.
    """
    import multiprocessing

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
