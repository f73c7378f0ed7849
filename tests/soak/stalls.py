"""How late the event loop is, and what it was doing meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
import sys
import threading
import time
from array import array
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

TICK = 0.001
RESOLUTION_MS = 0.1
LONGEST_MS = 20_000
LOOKS_EVERY = 0.003
ALWAYS_OWN_MS = 15.0
# What these do, they do without the interpreter's lock.
RELEASING = ("onnxruntime_inference_collection.py run", "hiredis.py read_from_socket")
OURS = str(Path(__file__).parents[2])


class Spread:
    """A histogram of milliseconds that takes the same memory however long it is filled."""

    def __init__(self) -> None:
        self._counts = array("L", bytes(8 * int(LONGEST_MS / RESOLUTION_MS)))
        self.worst = 0.0
        self.total = 0

    def add(self, milliseconds: float) -> None:
        place = int(max(0.0, milliseconds) / RESOLUTION_MS)
        self._counts[min(place, len(self._counts) - 1)] += 1
        self.worst = max(self.worst, milliseconds)
        self.total += 1

    def percentile(self, share: float) -> float:
        """The upper edge of the bucket that holds a percentile."""
        wanted = self.total * share
        seen = 0
        for place, count in enumerate(self._counts):
            seen += count
            if seen >= wanted:
                return min(self.worst, (place + 1) * RESOLUTION_MS)
        return self.worst

    def above(self, milliseconds: float) -> int:
        """How many were longer."""
        return sum(self._counts[int(milliseconds / RESOLUTION_MS) :])


class Heartbeat:
    """Beats every millisecond in the loop and notes by how much it is late.

    ``own`` is the processor time that the loop's thread spent meanwhile: a beat that is late with little of it waited
    for the interpreter's lock or for a processor.
    """

    def __init__(self) -> None:
        self.late = Spread()
        self.own = Spread()
        self.thread = threading.get_ident()
        self.began = time.perf_counter()
        self.number = 0
        self.finished: dict[int, tuple[float, float]] = {}
        self.kept_above = float("inf")

    async def run(self) -> None:
        while True:
            cpu = time.thread_time()
            self.number += 1
            self.began = time.perf_counter()
            await asyncio.sleep(TICK)
            late = (time.perf_counter() - self.began - TICK) * 1000
            own = (time.thread_time() - cpu) * 1000
            self.late.add(late)
            self.own.add(own)
            if late > self.kept_above:
                self.finished[self.number] = (late, own)


@dataclass
class Stall:
    """One late beat, and every look at the loop's thread meanwhile."""

    looks: list[tuple[str, ...]] = field(default_factory=list)
    sizes: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)


class Watcher(threading.Thread):
    """Looks at the stack of the loop's thread whenever a beat is late."""

    def __init__(self, heartbeat: Heartbeat, above_ms: float) -> None:
        super().__init__(name="stall-watcher", daemon=True)
        self.stalls: dict[int, Stall] = {}
        self.collections: list[tuple[int, float, float, str]] = []
        self._heartbeat = heartbeat
        self._above_ms = above_ms
        self._ended = threading.Event()
        self._collecting = (0.0, 0.0)
        heartbeat.kept_above = above_ms

    def run(self) -> None:
        gc.callbacks.append(self._collected)
        while not self._ended.wait(LOOKS_EVERY):
            number, began = self._heartbeat.number, self._heartbeat.began
            late = (time.perf_counter() - began - TICK) * 1000
            # From the first third on, since the watcher itself comes late where the lock is held.
            if late > self._above_ms / 3:
                self._look(self.stalls.setdefault(number, Stall()))
                self._forget(number)
        gc.callbacks.remove(self._collected)

    def end(self) -> None:
        self._ended.set()
        self.join()

    def _forget(self, number: int) -> None:
        # Those that stayed below the limit are of no interest.
        for old in [one for one in self.stalls if one < number and one not in self._heartbeat.finished]:
            del self.stalls[old]

    def _look(self, stall: Stall) -> None:
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        for ident, frame in sys._current_frames().items():
            stack = _stack(frame)
            if ident == self._heartbeat.thread:
                stall.looks.append(stack)
                stall.sizes.append(_sizes(frame))
            elif ident != self.ident and not _idle(frame):
                stall.others[f"{names.get(ident)}: {_innermost(stack)} > {_function(stack[-1])}"] += 1

    def _collected(self, phase: str, info: Mapping[str, int]) -> None:
        if phase == "start":
            self._collecting = (time.perf_counter(), time.thread_time())
            return
        took = (time.perf_counter() - self._collecting[0]) * 1000
        own = (time.thread_time() - self._collecting[1]) * 1000
        if took > self._above_ms:
            self.collections.append((info["generation"], took, own, threading.current_thread().name))

    def report(self, most: int = 25) -> str:
        """The culprits, by the time that they cost altogether."""
        culprits: dict[str, list[tuple[float, float, Stall]]] = {}
        for number, (late, own) in self._heartbeat.finished.items():
            stall = self.stalls.get(number)
            culprits.setdefault(_culprit(stall, late, own), []).append((late, own, stall or Stall()))
        ranked = sorted(culprits.items(), key=lambda item: -sum(late for late, _, _ in item[1]))
        lines = []
        for culprit, stalls in ranked[:most]:
            late, own, worst = max(stalls, key=lambda one: one[0])
            lines.append(
                f"{culprit}: {len(stalls)} stalls, worst {late:.0f} ms (own processor time {own:.0f} ms), "
                f"together {sum(one[0] for one in stalls):.0f} ms"
            )
            counted = Counter(zip(worst.looks, worst.sizes, strict=True))
            for (stack, sizes), count in counted.most_common(3):
                lines.append(f"    {count} of {len(worst.looks)} looks: {' > '.join(stack)}")
                lines.append(f"        data: {sizes}")
            lines += [f"    beside it, {count} looks: {other}" for other, count in worst.others.most_common(3)]
        for generation, took, own, name in sorted(self.collections, key=lambda one: -one[1])[:10]:
            lines.append(
                f"garbage collection of generation {generation} in {name}: {took:.0f} ms "
                f"(own processor time {own:.0f} ms)"
            )
        return "\n".join(lines)


def _stack(frame: FrameType | None) -> tuple[str, ...]:
    found = []
    while frame is not None:
        code = frame.f_code
        found.append(f"{_short(code.co_filename)}:{frame.f_lineno} {code.co_name}")
        frame = frame.f_back
    outermost_first = found[::-1]
    # What every stack begins with says nothing.
    starts = [at for at, one in enumerate(outermost_first) if "asyncio/events.py" in one]
    after = outermost_first[starts[-1] + 1 :] if starts else outermost_first
    # Between two callbacks there is nothing after it.
    return tuple(after or outermost_first[-1:])


def _short(filename: str) -> str:
    return filename.removeprefix(OURS + "/") if filename.startswith(OURS) else "/".join(filename.split("/")[-2:])


def _idle(frame: FrameType) -> bool:
    return frame.f_code.co_name in {"wait", "_serve", "_worker", "select", "poll", "_bootstrap_inner"}


def _sizes(frame: FrameType | None) -> str:
    """What the three innermost frames hold that has a length."""
    found = []
    for _ in range(3):
        if frame is None:
            break
        for name, value in list(frame.f_locals.items()):
            with contextlib.suppress(Exception):
                found.append(_size(name, value))
        frame = frame.f_back
    return ", ".join(one for one in found if one)


def _size(name: str, value: Any) -> str:
    if isinstance(value, str | bytes | bytearray | list | tuple | dict | set) and len(value) > 20:
        return f"{name}: {type(value).__name__} of {len(value)}"
    return ""


def _culprit(stall: Stall | None, late: float, own: float) -> str:
    """Whose stall it was: what the loop ran, or what another thread did while the loop waited for the lock."""
    if stall is None or not stall.looks:
        return "nobody was seen (the interpreter's lock or the processor was taken)"
    if own < late / 2 and own < ALWAYS_OWN_MS:
        holding = [other for other, _ in stall.others.most_common() if not other.endswith(RELEASING)]
        return f"the loop waits; {holding[0]}" if holding else "the loop waits; the processors are busy"
    found: Counter[str] = Counter()
    for stack in stall.looks:
        found[_innermost(stack)] += 1
    return found.most_common(1)[0][0]


def _innermost(stack: tuple[str, ...]) -> str:
    """The last function of the package, or of whatever ran; without its line."""
    inside = [one for one in stack if one.startswith("knowledge_base/")]
    return _function((inside or list(stack) or ["idle"])[-1])


def _function(place: str) -> str:
    return re.sub(r":(\d+|None) ", " ", place)


@contextlib.asynccontextmanager
async def heartbeat(stacks_above_ms: float | None = None) -> AsyncIterator[tuple[Heartbeat, Watcher | None]]:
    """Measures the loop inside; with a limit, looks at what makes it late."""
    beats = Heartbeat()
    watcher = None if stacks_above_ms is None else Watcher(beats, stacks_above_ms)
    task = asyncio.create_task(beats.run(), name="heartbeat")
    if watcher is not None:
        watcher.start()
    try:
        yield beats, watcher
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if watcher is not None:
            watcher.end()
