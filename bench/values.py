"""Encoding and decoding beside msgspec, ormsgpack alone, orjson, pickle and langgraph's JsonPlusSerializer.

Run ``python bench/values.py [--rounds 15]``. All contenders take turns in each round, so that a busy machine slows all of
them; what is printed is the median over the rounds in microseconds, and in brackets how many times Stateroom's that is.
"""

import argparse
import gc
import json
import pickle
import random
import statistics
from collections.abc import Callable
from functools import partial
from time import perf_counter_ns
from typing import Any

import msgspec
import ormsgpack

from stateroom.codec import Codec, packing

Pair = tuple[Callable[[Any], Any], Callable[[Any], Any]]


def contenders() -> dict[str, Pair]:
    """Encode and decode of each; what is not installed is left out."""
    codec = Codec()
    callback = codec._packer.take().first
    found: dict[str, Pair] = {
        "stateroom": (codec.encode, codec.decode),
        "ormsgpack": (
            lambda value: ormsgpack.packb(value, callback, packing.OPTIONS),
            lambda data: ormsgpack.unpackb(data, option=ormsgpack.OPT_NON_STR_KEYS),
        ),
        "msgspec": (msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder().decode),
        "pickle": (pickle.dumps, pickle.loads),
        "json": (lambda value: json.dumps(value).encode(), json.loads),
    }
    try:
        import orjson
    except ImportError:
        print("orjson is not installed")
    else:
        found["orjson"] = (orjson.dumps, orjson.loads)
    try:
        from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
    except ImportError:
        print("langgraph-checkpoint is not installed")
    else:
        serde = JsonPlusSerializer()
        found["langgraph"] = (serde.dumps_typed, serde.loads_typed)
    return found


def subjects() -> dict[str, Any]:
    """What is encoded. Seeded: the same on every run."""
    chance = random.Random(7)

    def words(count: int) -> str:
        return " ".join(chance.choice(["order", "paid", "ship", "wait", "retry", "total"]) for _ in range(count))

    record = [1, 5, 1_700_000_000_000_000, "order-17", "running", {"amount": 5, "currency": "EUR", "rate": 1.25}]
    record += [None, True, ["charge", "ship"], {"step": words(8)}, words(22)]
    document = {
        f"item {at}": {
            "id": at,
            "price": round(chance.random() * 100, 2),
            "words": words(9),
            "tags": [words(1), words(1)],
            "at": 1_700_000_000_000_000 + chance.randrange(10**12),
            "open": at % 3 == 0,
            "parent": None,
        }
        for at in range(75)
    }
    plain = {key: {**item, "price": at} for at, (key, item) in enumerate(document.items())}
    for item in plain.values():
        item["at"] = chance.randrange(50)
    return {
        "record of 300 B": record,
        "document of 10 KB": document,
        "document of 10 KB, small ints only": plain,
        "array of 1 MB, floats": [chance.random() for _ in range(111_000)],
        "array of 1 MB, ints": [chance.randrange(1 << 40) for _ in range(111_000)],
        "array of 1 MB, words": [words(2) for _ in range(90_000)],
    }


def measure(actions: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median microseconds of one call, over interleaved rounds of about 2 ms each."""
    counts = {}
    for name, action in actions.items():
        start = perf_counter_ns()
        action()
        action()
        counts[name] = max(1, 2 * 2_000_000 // max(1, perf_counter_ns() - start))
    times: dict[str, list[float]] = {name: [] for name in actions}
    gc.collect()
    gc.disable()  # as timeit does: a collection falls on whoever is next
    for _ in range(rounds):
        for name, action in actions.items():
            count = counts[name]
            start = perf_counter_ns()
            for _ in range(count):
                action()
            times[name].append((perf_counter_ns() - start) / count / 1000)
    gc.enable()
    return {name: statistics.median(all_of) for name, all_of in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=31)
    rounds = parser.parse_args().rounds
    pairs = contenders()
    for title, value in subjects().items():
        size = len(pairs["stateroom"][0](value))
        print(f"\n{title} ({size} bytes)")
        data = {name: encode(value) for name, (encode, _) in pairs.items()}
        bound = {name: (pair, data[name]) for name, pair in pairs.items()}
        encoded = measure({name: partial(pair[0], value) for name, (pair, _) in bound.items()}, rounds)
        decoded = measure({name: partial(pair[1], b) for name, (pair, b) in bound.items()}, rounds)
        for name in pairs:
            ours, theirs = encoded["stateroom"], encoded[name]
            back, their_back = decoded["stateroom"], decoded[name]
            both = (theirs + their_back) / (ours + back)
            print(
                f"  {name:10} encode {theirs:10.2f} ({theirs / ours:6.2f})"
                f"   decode {their_back:10.2f} ({their_back / back:6.2f})   both ({both:6.2f})"
            )


if __name__ == "__main__":
    main()
