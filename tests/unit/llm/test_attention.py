"""The attention kernels against attention written out plainly: chunks, shared blocks, windows, soft caps, groups."""

import dataclasses
import importlib.util
import os
import platform
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from services.common.errors import FailedPrecondition
from services.worker.llm.attention import library
from services.worker.llm.attention import make_attention as make_for_device
from services.worker.llm.attention.port import KVShape, PagedAttention, Rule
from services.worker.llm.attention.splitting import parts
from services.worker.llm.inputs import Inputs
from services.worker.llm.options import AttentionName
from services.worker.llm.plan import Plan

# Triton's kernel runs on a CPU in Triton's own interpreter, where that is installed: TRITON_INTERPRET=1.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1" and importlib.util.find_spec("triton") is not None
KERNELS: list[AttentionName] = ["native", "gather", *(["triton"] if INTERPRETED else [])]  # type: ignore[list-item]  # a literal
BLOCKS = 64
CPU = torch.device("cpu")


def make_attention(name: AttentionName, shape: KVShape, num_blocks: int) -> PagedAttention:
    """Of any name, on the CPU."""
    if name == "triton":
        from services.worker.llm.attention.triton import TritonAttention

        return TritonAttention(shape, num_blocks)
    return make_for_device(name, shape, num_blocks)


def shape(heads: int = 4, kv_heads: int = 2, size: int = 32, dtype: torch.dtype = torch.float32) -> KVShape:
    return KVShape(
        layers=2, heads=heads, kv_heads=kv_heads, size=size, block_size=16, dtype=dtype, device=torch.device("cpu")
    )


class Sequences:
    """Some sequences with random keys, values and queries, fed to a kernel in chunks."""

    def __init__(self, shape: KVShape, lengths: list[int], seed: int = 0) -> None:
        random = torch.Generator().manual_seed(seed)
        self.shape, self.lengths = shape, lengths
        self.query, self.key, self.value = (
            [torch.randn(n, heads, shape.size, generator=random).to(shape.dtype) for n in lengths]
            for heads in (shape.heads, shape.kv_heads, shape.kv_heads)
        )
        order = np.random.default_rng(seed).permutation(BLOCKS).tolist()
        self.blocks = [[order.pop() for _ in range(-(-n // 16))] for n in lengths]
        self.done = [0] * len(lengths)
        self.inputs = Inputs(len(lengths), BLOCKS, 16, CPU)

    def step(self, kernel: PagedAttention, counts: dict[int, int], rule: Rule) -> list[tuple[int, int, Tensor]]:
        """Attention of the next `counts[i]` tokens of sequence i: (sequence, start, output) for each."""
        plan = Plan()
        for i, count in counts.items():
            if not self.done[i]:
                plan.extend_table(i, 0, self.blocks[i])
            plan.rows.append(i)
            plan.starts.append(self.done[i])
            plan.counts.append(count)
        kernel.begin(self.inputs.step(plan))
        query, key, value = (
            torch.cat([side[i][self.done[i] : self.done[i] + count] for i, count in counts.items()])
            for side in (self.query, self.key, self.value)
        )
        output = kernel.attend(1, query, key, value, rule)
        found = []
        for (i, count), rows in zip(counts.items(), output.split(plan.counts), strict=True):
            found.append((i, self.done[i], rows))
            self.done[i] += count
        return found

    def expected(self, i: int, rule: Rule) -> Tensor:
        """[length, heads, size] of sequence i, in double precision."""
        group = self.shape.heads // self.shape.kv_heads
        query, key, value = (side[i].double() for side in (self.query, self.key, self.value))
        scores = torch.einsum("qhd,khd->hqk", query, key.repeat_interleave(group, 1)) * rule.scale
        if rule.cap:
            scores = torch.tanh(scores / rule.cap) * rule.cap
        places = torch.arange(self.lengths[i])
        seen = places[None] <= places[:, None]
        if rule.window:
            seen &= places[None] > places[:, None] - rule.window
        weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
        return torch.einsum("hqk,khd->qhd", weights, value.repeat_interleave(group, 1))


def check(kernel_name: AttentionName, shape: KVShape, rule: Rule, tolerance: float = 2e-6) -> None:
    sequences = Sequences(shape, [1, 15, 16, 17, 130, 300])
    kernel = make_attention(kernel_name, shape, BLOCKS)
    chunks = [1, 7, 64, 3, 100]
    turn = 0
    while counts := {
        i: min(chunks[(turn + i) % len(chunks)], n - sequences.done[i])
        for i, n in enumerate(sequences.lengths)
        if sequences.done[i] < n
    }:
        turn += 1
        for i, start, output in sequences.step(kernel, counts, rule):
            wanted = sequences.expected(i, rule)[start : start + len(output)]
            assert (output.double() - wanted).abs().max() < tolerance


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (4, 4), (6, 2), (4, 1), (10, 2)])
def test_groups_of_heads(kernel: AttentionName, heads: int, kv_heads: int) -> None:
    check(kernel, shape(heads, kv_heads), Rule(0.2))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("size", [16, 48, 64, 80, 256])
def test_sizes_of_heads(kernel: AttentionName, size: int) -> None:
    check(kernel, shape(size=size), Rule(size**-0.5))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("window", [1, 16, 20, 129])
def test_sliding_windows(kernel: AttentionName, window: int) -> None:
    check(kernel, shape(), Rule(0.2, window))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("window", [0, 20])
def test_soft_caps(kernel: AttentionName, window: int) -> None:
    check(kernel, shape(), Rule(0.5, window, 3.0), tolerance=5e-6)


@pytest.mark.parametrize("kernel", KERNELS)
def test_bfloat16(kernel: AttentionName) -> None:
    if kernel == "triton":
        pytest.skip("Triton's interpreter multiplies bfloat16 wrongly")
    check(kernel, shape(dtype=torch.bfloat16), Rule(0.2), tolerance=3e-2)


def test_large_scores_stay_finite() -> None:
    for kernel in KERNELS:
        check(kernel, shape(), Rule(40.0), tolerance=5e-3)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("heads", "rule"), [(6, Rule(0.2)), (4, Rule(0.5, 600, 3.0))])
def test_one_long_context_beside_a_short_one(kernel: AttentionName, heads: int, rule: Rule) -> None:
    """Long enough for Triton's kernel to split it, and the short one to have parts without a key."""
    sequences = Sequences(shape(heads, 2), [860, 20])
    made = make_attention(kernel, sequences.shape, BLOCKS)
    sequences.step(made, {0: 857, 1: 1}, rule)
    for _ in range(3):
        for i, start, output in sequences.step(made, {0: 1, 1: 1}, rule):
            wanted = sequences.expected(i, rule)[start : start + 1]
            assert (output.double() - wanted).abs().max() < 5e-6


@pytest.mark.parametrize(
    ("programs", "longest", "wanted"), [(8, 8192, 32), (8, 100, 1), (8, 1024, 4), (64, 8192, 4), (300, 8192, 1)]
)
def test_few_programs_are_split_until_they_fill_a_gpu_but_never_into_crumbs(
    programs: int, longest: int, wanted: int
) -> None:
    assert parts(programs, longest, wanted=264) == wanted


@pytest.mark.parametrize("kernel_name", KERNELS)
def test_blocks_filled_by_another_chunk_of_the_same_step_are_seen(kernel_name: AttentionName) -> None:
    sequences = Sequences(shape(), [40, 40])
    for side in (sequences.query, sequences.key, sequences.value):
        side[1] = side[0].clone()
    sequences.blocks[1][:2] = sequences.blocks[0][:2]
    sequences.done[1] = 32
    sequences.inputs.step(_table(1, sequences.blocks[1]))
    kernel = make_attention(kernel_name, sequences.shape, BLOCKS)
    (_, _, first), (_, _, second) = sequences.step(kernel, {0: 40, 1: 8}, Rule(0.2))
    assert torch.allclose(first[32:], second, atol=1e-6)


@pytest.mark.parametrize("kernel_name", KERNELS)
def test_what_a_broken_sequence_left_behind_harms_nobody(kernel_name: AttentionName) -> None:
    sequences = Sequences(shape(), [32, 20])
    sequences.value[0] *= torch.nan
    sequences.key[0] *= torch.nan
    kernel = make_attention(kernel_name, sequences.shape, BLOCKS)
    sequences.step(kernel, {0: 32}, Rule(0.2))
    sequences.blocks[1] = sequences.blocks[0]
    ((_, _, output),) = sequences.step(kernel, {1: 20}, Rule(0.2))
    assert torch.allclose(output.double(), sequences.expected(1, Rule(0.2)), atol=2e-6)


def test_a_row_is_the_same_to_the_bit_in_any_chunk_and_company() -> None:
    alone, together = (Sequences(shape(6, 2, 64), [200, 170]) for _ in range(2))
    one, other = (make_attention("native", alone.shape, BLOCKS) for _ in range(2))
    single = torch.cat([alone.step(one, {0: 1}, Rule(0.2))[0][2] for _ in range(200)])
    whole = together.step(other, {0: 200, 1: 170}, Rule(0.2))[0][2]
    assert torch.equal(single, whole)


def test_a_shape_that_the_native_kernel_cannot_take_falls_back_unless_it_was_named() -> None:
    odd = dataclasses.replace(shape(), size=20)
    with pytest.raises(FailedPrecondition, match="heads of a multiple of 16"):
        make_attention("native", odd, BLOCKS)
    check("auto", odd, Rule(0.2))


def test_without_a_compiler_the_engine_still_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(FailedPrecondition, match="apt install g"):
        make_attention("native", shape(), BLOCKS)
    check("auto", shape(), Rule(0.2))


def test_an_image_without_a_compiler_takes_the_binary_that_its_build_has_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert library.build(tmp_path), "this machine's architecture has no binaries"
    if library.prebuilt(tmp_path, platform.machine(), features := library.features()) is None:
        pytest.skip(f"this processor is of none of the kinds that images are built for: {sorted(features)}")
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(library, "_BESIDE", tmp_path)
    check("native", shape(), Rule(0.2))


def test_the_best_binary_that_the_processor_runs_is_taken(tmp_path: Path) -> None:
    best, plain = (tmp_path / library.file_name(kind) for kind in ("x86-64-v4", "x86-64-v3"))
    best.touch()
    plain.touch()
    plain_features = {"avx2", "fma", "bmi1", "bmi2", "f16c", "movbe"}
    all_features = plain_features | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
    assert library.prebuilt(tmp_path, "x86_64", all_features) == best
    assert library.prebuilt(tmp_path, "x86_64", plain_features) == plain
    assert library.prebuilt(tmp_path, "x86_64", plain_features - {"fma"}) is None
    best.unlink()
    assert library.prebuilt(tmp_path, "x86_64", all_features) == plain
    assert library.prebuilt(tmp_path, "riscv64", all_features) is None


def _table(row: int, blocks: list[int]) -> Plan:
    plan = Plan(rows=[row], starts=[0], counts=[1])
    plan.extend_table(row, 0, blocks)
    return plan
