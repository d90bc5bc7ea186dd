"""Streams, mixtures and loaders: every record once an epoch, and exact positions."""

from __future__ import annotations

import itertools
import json
import logging

import pytest

from blip3o.data.loader import LoaderConfig, RecordLoader, rearrange
from blip3o.data.mixture import Ingredient, Mixture
from blip3o.data.records import Reading
from blip3o.data.sources import TableSource, WebDatasetSource
from blip3o.data.stream import Position, RecordStream, redistribute
from blip3o.errors import ConfigError, DataError


class Numbers:
    """Shards of consecutive numbers, unequal in length; some are empty."""

    def __init__(self, sizes, name="numbers"):
        self.name, self.sizes = name, sizes

    def shards(self):
        return [str(i) for i in range(len(self.sizes))]

    def read(self, shard, start=0):
        first = sum(self.sizes[: int(shard)])
        yield from range(first + start, first + self.sizes[int(shard)])


SIZES = [5, 0, 1, 9, 3, 7, 2]
TOTAL = sum(SIZES)


def take(stream, count):
    return list(itertools.islice(iter(stream), count))


@pytest.mark.parametrize("block", [1, 4, 1000])
@pytest.mark.parametrize("readers", [1, 2, 3])
def test_readers_together_see_every_record_once_an_epoch(readers, block):
    seen, epochs = [], []
    for reader in range(readers):
        stream = RecordStream(Numbers(SIZES), 7, reader=reader, readers=readers, block=block)
        for record in stream:
            if stream.position.epoch > 0:
                break
            seen.append(record)
        epochs.append(take(RecordStream(Numbers(SIZES), 7, block=block), 2 * TOTAL))
    assert sorted(seen) == list(range(TOTAL))
    first, second = epochs[0][:TOTAL], epochs[0][TOTAL:]
    assert sorted(first) == sorted(second) == list(range(TOTAL)) and first != second
    assert epochs[0] == epochs[-1]


@pytest.mark.parametrize("block", [1, 4, 1000])
def test_a_stream_resumes_with_the_very_next_record_from_anywhere(block):
    whole = RecordStream(Numbers(SIZES), 3, block=block)
    wanted = take(whole, 60)
    stream = RecordStream(Numbers(SIZES), 3, block=block)
    for count, record in enumerate(stream, start=1):
        assert record == wanted[count - 1]
        stored = json.loads(json.dumps(stream.position.to_dict()))
        again = RecordStream(Numbers(SIZES), 3, block=block, position=Position.from_dict(stored))
        assert take(again, 3) == wanted[count : count + 3]
        if count == 57:
            break


def test_blocks_shuffle_across_shards():
    stream = take(RecordStream(Numbers([50] * 10), 0, block=200), 200)
    assert len({number // 50 for number in stream[:20]}) == 4


@pytest.mark.parametrize(("sizes", "readers"), [([11], 4), ([7, 5], 3), ([8, 9], 8)])
def test_fewer_shards_than_readers_are_read_in_parts(sizes, readers):
    """Every record once an epoch, and every reader goes on with its very next one."""
    seen = []
    for reader in range(readers):
        options = {"reader": reader, "readers": readers, "block": 2}
        mine, stream = [], RecordStream(Numbers(sizes), 3, **options)
        for record in stream:
            if stream.position.epoch:
                break
            mine.append(record)
            stored = json.loads(json.dumps(stream.position.to_dict()))
            again = RecordStream(Numbers(sizes), 3, position=Position.from_dict(stored), **options)
            following = next(iter(again))
            assert again.position.epoch or following not in mine
        seen += mine
    assert sorted(seen) == list(range(sum(sizes)))


def test_parts_of_a_shard_survive_another_number_of_readers():
    streams = [RecordStream(Numbers([40]), 3, reader=r, readers=4, block=4) for r in range(4)]
    seen = [record for stream in streams for record in take(stream, 5)]
    moved = redistribute([s.position for s in streams], Numbers([40]), 3, 2)
    for reader, position in enumerate(moved):
        stream = RecordStream(Numbers([40]), 3, reader=reader, readers=2, block=4, position=position)
        for record in stream:
            if stream.position.epoch:
                break
            seen.append(record)
    assert set(seen) == set(range(40))


def test_empty_sources_are_refused():
    with pytest.raises(DataError, match="holds no records for reader 0"):
        take(RecordStream(Numbers([0, 0]), 0), 1)
    with pytest.raises(ConfigError, match="reader 2 of 2"):
        RecordStream(Numbers([1, 1]), 0, reader=2, readers=2)


def mixture(state=None, **options):
    ingredients = [
        Ingredient(Numbers([40] * 3, "many"), lambda n: ("many", n), weight=3),
        Ingredient(Numbers([7] * 2, "few"), lambda n: ("few", n), weight=1),
    ]
    return Mixture(ingredients, 11, block=16, state=state, **options)


def test_a_mixture_draws_by_weight_and_resumes_exactly():
    wanted = take(mixture(), 2000)
    share = sum(name == "many" for name, _ in wanted) / len(wanted)
    assert 0.71 < share < 0.79
    for stop in (1, 17, 500):
        first = mixture()
        take(first, stop)
        state = json.loads(json.dumps(first.state()))
        assert take(mixture(state), 100) == wanted[stop : stop + 100]


def test_a_mixture_of_other_data_does_not_take_the_position():
    state = mixture().state()
    with pytest.raises(ConfigError, match="data sets few, many, not of other"):
        Mixture([Ingredient(Numbers([3], "other"), str)], 11, state=state)
    with pytest.raises(ConfigError, match="greater than 0"):
        Mixture([Ingredient(Numbers([3]), str, weight=0.0)], 0)
    with pytest.raises(ConfigError, match="names of their own"):
        Mixture([Ingredient(Numbers([3]), str), Ingredient(Numbers([3]), str)], 0)


def odd_only(number):
    if number % 2 == 0:
        raise DataError(f"record '{number}' is even")
    return number


def test_bad_records_are_skipped_counted_and_bounded(caplog):
    with caplog.at_level(logging.WARNING):
        rows = [{"id": n} for n in range(20)]
        source = TableSource(rows, name="rows")
        good = Mixture([Ingredient(source, lambda raw: odd_only(raw.fields["id"]))], 0, patience=99)
        assert sorted(take(good, 10)) == list(range(1, 20, 2))
    tally = good.tallies["rows"]
    bad_so_far = tally.read - 10
    assert tally.bad == bad_so_far == len(tally.bad_keys) > 0
    assert "skipped a record: record '" in caplog.text
    strict = Mixture([Ingredient(source, lambda raw: odd_only(raw.fields["id"]))], 0, patience=8)
    with pytest.raises(DataError, match=r"data set 'rows': \d+ of \d+ records are bad, more than 1"):
        take(strict, 10)


def loader(pattern, state=None, **options):
    config = LoaderConfig(batch_size=3, seed=5, block=8, **options)
    source = WebDatasetSource([pattern])
    return RecordLoader([Ingredient(source, Reading().caption)], config, state=state)


def take_keys(batches, count):
    return [[record.key for record in batch] for batch in take(batches, count)]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_resumes_after_the_last_used_batch(shards, workers):
    pattern = shards(4, 6)
    wanted = take_keys(loader(pattern, workers=workers), 12)
    first = loader(pattern, workers=workers)
    take(first, 5)
    state = json.loads(json.dumps(first.state()))
    assert take_keys(loader(pattern, state, workers=workers), 7) == wanted[5:]


def test_processes_share_the_records_out(shards):
    pattern = shards(4, 6)
    seen = [
        key
        for rank in (0, 1)
        for batch in take_keys(loader(pattern, rank=rank, world_size=2), 4)
        for key in batch
    ]
    assert sorted(seen) == [f"{n:05d}" for n in range(24)]


def test_another_number_of_processes_loses_nothing(shards):
    pattern = shards(8, 8)
    before = [loader(pattern, rank=rank, world_size=2) for rank in (0, 1)]
    seen = {key for old in before for batch in take_keys(old, 6) for key in batch}
    states = [old.state() for old in before]
    with pytest.raises(ConfigError, match="of 2 processes with 1 readers, not 3 with 1"):
        loader(pattern, states[0], rank=0, world_size=3)
    after = []
    for rank in range(3):
        config = LoaderConfig(batch_size=3, seed=5, block=8, rank=rank, world_size=3)
        ingredients = [Ingredient(WebDatasetSource([pattern]), Reading().caption)]
        moved = rearrange(states, ingredients, config)
        mixture = Mixture(
            ingredients, 5, reader=rank, readers=3, block=8, state=moved["readers"][0]
        )
        for record in mixture:
            if mixture.state()["positions"]["webdataset"]["epoch"] > 0:
                break
            after.append(record.key)
    assert seen | set(after) == {f"{n:05d}" for n in range(64)}
    # seen twice: at most the begun block of each earlier reader
    assert len(seen) + len(after) - 64 <= 2 * 8


def test_wrong_loader_settings_are_refused():
    with pytest.raises(ConfigError, match="batch_size at least 1"):
        LoaderConfig(batch_size=0)
    with pytest.raises(ConfigError, match="ranks count from 0"):
        LoaderConfig(batch_size=1, rank=2, world_size=2)
