"""Where the time of a training step goes.

  python -m benchmarks.profile                                       plain20 and resnet34, batch 100
  python -m benchmarks.profile --model=vgg19 --batch-size=128 --precision=bf16 --output=profile.json

The program is that of `benchmarks.step`. JAX's profiler says when each of its operations ran, and the operation's name
in the compiled program from which part of the step it comes. While several run, each counts for its share of the
moment, so the parts add up to the step; `idle` is when none ran. XLA fuses operations that follow one another: what is
fused counts where the last of it belongs.
"""

import re
import tempfile
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.step import CHUNK, NETS, jax_chunk, step_parser, trains_on
from benchmarks.timing import interleave, write

# A part of the step, and what is found in the names of its operations; the first part that fits has them.
PARTS = {
    "optimizer": r"/optimizer/",
    "gradients of kernels": r"/kernel_gradient/|convBackwardFilter",  # the second as cuDNN calls it
    "gradients of convolutions' inputs": r"/input_gradient/|convBackwardInput",
    "both, by products for each pixel": r"transpose\(.*/conv/",
    "convolutions": r"/conv/",
    "BatchNorm, backward": r"transpose\(.*/norm/",
    "BatchNorm": r"/norm/",
    "other layers, backward": r"transpose\(",
    "other layers": r"jvp\(",
    "data, copies, the loop": "",
}


class Interval(NamedTuple):
    """When an operation ran, in nanoseconds."""

    operation: str
    start: float
    end: float


def parts_of(program: str) -> dict[str, str]:
    """The part of each operation in the text of a compiled program, less those that only hold others.

    >>> parts_of('%sub.1 = f32[3] subtract(%a, %b), metadata={op_name="jit(f)/optimizer/sub"}')
    {'sub.1': 'optimizer'}
    >>> parts_of('%c = f32[9] custom-call(%x, %g), custom_call_target="__cudnn$convBackwardFilter"')
    {'c': 'gradients of kernels'}
    >>> parts_of('%loop = (f32[3], s32[]) while(%init), condition=%c, body=%b')
    {}
    """
    parts = {}
    for line in program.splitlines():
        found = re.match(r"\s*(?:ROOT )?%?(\S+) = (.*)", line)
        if found and not re.search(r" (while|conditional|call)\(", found[2]):
            names = " ".join(re.findall(r'(?:op_name|custom_call_target)="([^"]*)"', found[2]))
            parts[found[1]] = next(part for part, pattern in PARTS.items() if re.search(pattern, names))
    return parts


def intervals(written: Path, operations: Iterable[str]) -> list[Interval]:
    """When each of the operations ran, as often as it did: on a GPU there, and not when the host started it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of jaxlib 0.12, of its own type of event
        events = [
            (event.name, event.start_ns, event.end_ns, dict(event.stats))
            for plane in jax.profiler.ProfileData.from_file(str(written)).planes
            if jax.default_backend() == "cpu" or plane.name.startswith("/device:")
            for line in plane.lines
            for event in line.events
        ]
    # XLA:CPU hands an operation on to other threads: the event `end: ...` that refers to it says when they are done.
    ends = {stats["_c"]: end for name, _, end, stats in events if name.startswith("end: ") and "_c" in stats}
    known = set(operations)
    return [
        Interval(stats["hlo_op"], start, max(end, ends.get(stats.get("_p"), end)))
        for _, start, end, stats in events
        if stats.get("hlo_op") in known
    ]


def shared_out(ran: Iterable[Interval]) -> dict[str, float]:
    """Nanoseconds of each operation, a moment being shared by those that run in it; `idle` is the rest.

    >>> shared_out([Interval("a", 0, 4), Interval("b", 2, 4), Interval("c", 5, 6)])
    {'a': 3.0, 'b': 1.0, 'idle': 1.0, 'c': 1.0}
    """
    changes = sorted(
        change
        for operation, start, end in ran
        for change in ((start, 1, operation), (end, -1, operation))
        if end > start
    )
    running: Counter[str] = Counter()
    spent: defaultdict[str, float] = defaultdict(float)
    before = changes[0][0]
    for moment, change, operation in changes:
        for name in running or ("idle",) if moment > before else ():
            spent[name] += (moment - before) * running.get(name, 1) / (running.total() or 1)
        before = moment
        running[operation] += change
        if not running[operation]:
            del running[operation]
    return dict(spent)


def trace(function: Callable[[], Any], program: str) -> tuple[dict[str, str], list[Interval]]:
    """The parts of a compiled program, given as text, and when its operations ran in a call of the function."""
    parts = parts_of(program)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(function())
        (written,) = Path(folder).rglob("*.xplane.pb")
        return parts, intervals(written, parts)


def profile(name: str, batch_size: int, precision: str) -> dict[str, Any]:
    """Milliseconds of a step, as it is and while it is profiled, and those of each part."""
    train_chunk, state, inputs = jax_chunk(NETS[name], batch_size, precision)
    program = train_chunk.lower(state, *inputs).compile()
    run = trains_on(program, state, inputs)
    (seconds,) = interleave({name: run}, turns=3).values()
    parts, ran = trace(run, program.as_text())
    if not ran:
        raise SystemExit(f"error: JAX's profiler saw no operation of the program on {jax.devices()[0].device_kind}")
    step = dict.fromkeys(PARTS, 0.0) | {"idle": 0.0}
    for operation, nanoseconds in shared_out(ran).items():
        step[parts.get(operation, "idle")] += nanoseconds / 1e6 / CHUNK
    return {"ms": 1e3 * float(np.median(seconds)) / CHUNK, "profiled_ms": sum(step.values()), "parts": step}


def main() -> None:
    """Profiles every network that was asked for."""
    options = step_parser("benchmarks.profile", __doc__).parse_args()
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}; batch {options.batch_size}, {options.precision}")
    results = {}
    for name in options.model:
        found = results[name] = profile(name, options.batch_size, options.precision)
        print(f"{name}: {found['ms']:.1f} ms a step, {found['profiled_ms']:.1f} while it is profiled", flush=True)
        for part, milliseconds in found["parts"].items():
            print(f"  {part:36}{milliseconds:9.1f} ms{milliseconds / found['profiled_ms']:8.1%}", flush=True)
    write(options.output, {"batch_size": options.batch_size, "precision": options.precision, "nets": results})


if __name__ == "__main__":
    main()
