"""One of five tenants sends ten times its share: what becomes of the others, with a tenants file and without.

python -m benchmarks.tenants [--kinds one-by-one,batch-costs,rows-cost,tokens] [--seconds 20] [--rounds 3]
    [--gateways 1] [--workers 1] [--share 0.1] [--pin]

Five tenants with a share of the capacity each: the calm. Then the first sends ten times as much. Rounds of calm and
flood take turns, so that what else the machine does falls on both. "open" is the same without tenants, in one line.
"""

import argparse
import asyncio
import os
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.multi_model.callers import percentile
from benchmarks.tenants.callers import Seen, capacity, crowd
from benchmarks.tenants.kinds import TENSORS, Kind, Tensors, Tokens
from headrace import Client
from headrace.client.registry import RegistryClient
from services.common.garbage import freeze_what_is_loaded
from tests.e2e.conftest import ready
from tests.support.stack import RunningStack, running_stack, wait_until
from tests.support.tenants import TenantsFile

TENANTS = ("flooder", "a", "b", "c", "d")
FLOOD = 10


@dataclass(slots=True)
class Arm:
    """What the quiet tenants saw, and the flooder, over all rounds."""

    quiet: Seen = field(default_factory=Seen)
    flooder: Seen = field(default_factory=Seen)
    p99s: list[float] = field(default_factory=list)

    def add(self, seen: dict[str, Seen]) -> None:
        """One more round."""
        self.p99s.append(percentile([each for name in TENANTS[1:] for each in seen[name].latencies], 0.99))
        for tenant, each in seen.items():
            total = self.flooder if tenant == "flooder" else self.quiet
            total.latencies += each.latencies
            for code, count in each.failed.items():
                total.failed[code] = total.failed.get(code, 0) + count


@dataclass(frozen=True, slots=True)
class Side:
    """A stack, with keys or without."""

    name: str
    up: RunningStack
    keys: dict[str, str]

    def gateways(self) -> list[str]:
        """host:port of each."""
        return [self.up.address(name) for name in self.up.processes() if name.startswith("gateway")]


def push(side: Side, kinds: list[Kind], folder: Path) -> None:
    """Every model, loaded."""
    key = side.keys.get("operator", "")
    with (
        RegistryClient(side.up.address("registry"), api_key=key) as registry,
        Client(side.up.address("gateway"), api_key=key) as client,
    ):
        for kind in kinds:
            registry.push(kind.name, kind.package(folder / side.name))
        for kind in kinds:
            wait_until(lambda name=kind.name: ready(client, name), kind.name, 120)  # type: ignore[misc]


def measure(kind: Kind, sides: list[Side], options: argparse.Namespace) -> None:
    """Both sides, calm and flood, round by round."""
    most = kind.capacity() * options.workers if isinstance(kind, Tensors) else 0.0
    if isinstance(kind, Tokens):
        side = sides[0]
        rate = capacity(kind, side.gateways()[0], side.keys.get("a", ""), 4 * kind.rows * options.workers, 6)
        most = asyncio.run(rate)
    calm = dict.fromkeys(TENANTS, most * options.share)
    flood = calm | {"flooder": most * options.share * FLOOD}
    arms = {(side.name, load): Arm() for side in sides for load in ("calm", "flood")}
    for number in range(options.rounds):
        for load, rates in (("calm", calm), ("flood", flood)):
            for side in sides:
                seen = crowd(kind, side.gateways(), rates, side.keys, options.seconds, seed=number)
                arms[side.name, load].add(asyncio.run(seen))
    print(f"{kind.name}: capacity {most:.0f}/s, a share is {most * options.share:.1f}/s", flush=True)
    for (side_name, load), arm in arms.items():
        tell(side_name, load, arm, options.seconds * options.rounds)
    for side in sides:
        for what, of in (("all rounds", None), ("median of rounds", median), ("least disturbed round", min)):
            before, after = (
                of(arm.p99s) if of is not None else percentile(arm.quiet.latencies, 0.99)
                for arm in (arms[side.name, "calm"], arms[side.name, "flood"])
            )
            print(f"  {side.name:8} quiet p99, {what}: {before:.1f} to {after:.1f} ms, {after / before - 1:+.0%}")


def tell(side: str, load: str, arm: Arm, seconds: float) -> None:
    """One line."""
    quiet, flooder = arm.quiet, arm.flooder
    print(
        f"  {side:8} {load:6} quiet: p50 {percentile(quiet.latencies, 0.5):6.1f} ms, p99"
        f" {percentile(quiet.latencies, 0.99):7.1f} ms, {len(quiet.latencies)} answered, failed {quiet.failed or 0};"
        f" flooder: {len(flooder.latencies) / seconds:.1f}/s answered, failed {flooder.failed or 0}",
        flush=True,
    )


def pin(up: RunningStack) -> None:
    """Workers get the last core to themselves, as a device would be theirs; all else, clients too, takes the others."""
    *others, last = sorted(os.sched_getaffinity(0))
    workers = {up.pid(name) for name in up.processes() if name.startswith("worker")}
    for pid in {os.getpid(), *up.pids()}:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {last} if pid in workers else others)


def main() -> None:
    """All kinds."""
    known: dict[str, Kind] = {kind.name: kind for kind in (*TENSORS, Tokens())}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", default=",".join(known))
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.1, help="of the capacity, that each of five tenants sends")
    parser.add_argument("--gateways", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", choices=("tenants", "open"), help="one side only")
    parser.add_argument("--pin", action="store_true", help="workers have a core to themselves")
    options = parser.parse_args()
    kinds = [known[name] for name in options.kinds.split(",")]
    with tempfile.TemporaryDirectory() as made, ExitStack() as parts:
        folder = Path(made)
        file = TenantsFile(folder / "tenants.yaml")
        for tenant in TENANTS:
            file.add(tenant)
        file.add("operator", write=True)
        sides: list[Side] = []
        for name, keys in (("tenants", file.keys), ("open", {})):
            if options.only in {None, name}:
                environment = {"HEADRACE_TENANTS": str(file.path)} if keys else {}
                if options.pin:
                    environment["OMP_NUM_THREADS"] = "1"
                stack = running_stack(
                    folder / f"{name}-data", workers=options.workers, gateways=options.gateways, environment=environment
                )
                sides.append(Side(name, parts.enter_context(stack), keys))
                if options.pin:
                    pin(sides[-1].up)
                push(sides[-1], kinds, folder)
        # Torch is in here for its weights: one collection through all of it stops every tenant for 200 ms.
        freeze_what_is_loaded()
        for kind in kinds:
            measure(kind, sides, options)


if __name__ == "__main__":
    main()
