"""The import arrows of docs/architecture.md, read from the source: nothing is imported to check it."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GENERATED = ("_pb2.py", "_pb2_grpc.py")
# The one composition root that joins two services in one process.
JOINS = {"single": {"gateway", "worker"}}
# What `pip install headrace` brings: all that the client and the command line may need to be imported.
CLIENT_PACKAGES = {"google", "grpc", "numpy", "pydantic", "rich", "typer", "yaml"}
# Opened only when such a model is pushed; headrace.packages.reading says what to install where they lack.
PACKAGE_READERS = {
    "headrace.packages.onnx_graph": {"onnxruntime"},
    "headrace.packages.torch_export": {"torch"},
    "headrace.packages.hub": {"huggingface_hub"},
    "headrace.packages.tokenizer": {"tokenizers"},
}
# Vendor SDK → the modules that may import it (a name, or a package by its trailing dot).
ADAPTERS: dict[str, tuple[str, ...]] = {
    "aio_pika": ("services.common.broker.rabbitmq.",),
    "aiormq": ("services.common.broker.rabbitmq.",),
    "boto3": ("services.common.objects.s3",),
    "botocore": ("services.common.objects.s3",),
    "docker": ("services.autoscaler.orchestrators.docker",),
    "kubernetes": ("services.autoscaler.orchestrators.kubernetes",),
    "huggingface_hub": ("headrace.packages.hub",),
    "httpx2": ("services.worker.runtime.openai", "services.jobs.gateways"),
    "vllm": ("services.worker.runtime.vllm.opening",),
    "onnxruntime": ("services.worker.runtime.onnx", "headrace.packages.onnx_graph"),
    "torch": ("services.worker.runtime.", "services.worker.llm.", "headrace.packages.torch_export"),
    "transformers": ("services.worker.llm.", "services.worker.text.prompts", "services.worker.runtime.embedding"),
    "tokenizers": ("services.worker.llm.", "services.worker.runtime.tokenizer", "headrace.packages.tokenizer"),
    "llguidance": ("services.worker.llm.structured",),
    "triton": ("services.worker.llm.attention.triton",),
    "cryptography": ("services.common.tls",),
    "jwt": ("services.common.tenants.tokens",),
    "pyvoy": ("services.gateway.hosts.launcher",),
    "uvicorn": ("services.gateway.hosts.aio",),
    "opentelemetry": ("services.common.telemetry.",),
    "prometheus_client": ("services.common.telemetry.",),
}
SCALING_POLICY_NAMES = ("config", "decide", "guards", "memory", "need", "observation", "windows")
SCALING_POLICY = {f"services.autoscaler.policy.{name}" for name in SCALING_POLICY_NAMES}
SCALING_SIGNALS = {
    *(f"services.autoscaler.signals.{name}" for name in ("counts", "picture", "views", "workers")),
    "services.autoscaler.policy.observation",
    "services.autoscaler.orchestrators.port",
    "services.autoscaler.service_time",
    "headrace.v1.fleet_pb2",
}
# The pure part of the LLM engine, which imports itself only.
LLM_CORE_NAMES = (
    "admission",
    "blocks",
    "config",
    "detokenise",
    "line",
    "output",
    "pace",
    "plan",
    "prefix",
    "request",
    "scheduler",
    "sequence",
    "sharing",
    "stops",
)
LLM_CORE = {f"services.worker.llm.{name}" for name in LLM_CORE_NAMES} | {
    "services.common.sampling",
    "services.common.fair",
    "services.worker.batch_cost",
    "services.worker.overdrafts",
}
# Pure cores → what they may import of ours. Beside it: the standard library without what reads clocks or does I/O.
PURE: dict[str, set[str]] = {
    "services.common.fair": set(),
    "services.common.levels": set(),
    "services.worker.batch_cost": set(),
    "services.worker.overdrafts": set(),
    "services.worker.batcher": {
        "services.common.fair",
        "services.common.levels",
        "services.worker.batch_cost",
        "services.worker.overdrafts",
    },
    "services.worker.placement": set(),
    "services.worker.strikes": set(),
    **{f"services.worker.llm.{name}": LLM_CORE for name in LLM_CORE_NAMES},
    "services.autoscaler.service_time": set(),
    **{name: SCALING_SIGNALS for name in SCALING_SIGNALS if name.startswith("services.autoscaler.signals")},
    **{f"services.autoscaler.policy.{name}": SCALING_POLICY for name in SCALING_POLICY_NAMES},
    "services.gateway.background": {"services.gateway.calls", "services.gateway.routes"},
    "services.jobs.lines": set(),
    "services.jobs.chunks": set(),
    "services.jobs.paging": set(),
    "services.jobs.job": {"services.jobs.chunks"},
    "services.common.broker.embedded.core": {"services.common.broker.port"},
    "services.gateway.hosts.framing": {"services.gateway.calls"},
    "services.gateway.hosts.envoy_config": set(),
    "services.gateway.hosts.envoy_tls": set(),
    "services.common.sampling": set(),
    "services.common.telemetry.sampling": set(),
    "services.common.text_requests": {"services.common.sampling", "headrace.v1.text_generation_pb2"},
    "services.registry.rules": {"services.common.datatypes", "headrace.v1.model_pb2"},
    "services.common.ensembles": {"headrace.v1.model_pb2"},
    "services.registry.ensembles": {"services.common.ensembles", "headrace.v1.model_pb2"},
    "services.gateway.protocol.signature": {
        "services.common.datatypes",
        "headrace.v1.model_pb2",
        "headrace.inference.grpc_service_pb2",
    },
    "services.gateway.text.checks": {
        "services.common.text_requests",
        "services.gateway.routes",
        "headrace.v1.text_generation_pb2",
    },
    "services.gateway.split": set(),
    "services.gateway.rate": set(),
    "services.common.tenants.tenant": set(),
    "services.gateway.quotas": {"services.gateway.rate", "services.common.tenants.tenant"},
    "services.common.outcomes": set(),
    "services.registry.rollouts": {"services.common.outcomes", "headrace.v1.rollout_pb2"},
    "services.gateway.routes": {
        "services.gateway.split",
        "services.gateway.rate",
        "headrace.v1.rollout_pb2",
        "services.common.queues",
        "services.gateway.protocol.signature",
        "headrace.v1.model_pb2",
    },
}
IMPURE = {"asyncio", "datetime", "os", "pathlib", "random", "secrets", "socket", "subprocess", "threading", "time"}


def modules() -> dict[str, Path]:
    """Dotted name → file, of everything that is written by hand."""
    found: dict[str, Path] = {}
    for folder in ("headrace", "services"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if not path.name.endswith(GENERATED):
                parts = path.relative_to(ROOT).with_suffix("").parts
                found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(path: Path, *, at_start_only: bool = False) -> Iterator[str]:
    """What a file imports; `at_start_only` leaves out imports inside functions and for type checkers."""
    for node in _nodes(ast.parse(path.read_text()), at_start_only):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the arrows; write the whole name"
            assert node.module is not None
            yield node.module
            yield from (name for alias in node.names if (name := f"{node.module}.{alias.name}") in MODULES)


def _nodes(tree: ast.AST, at_start_only: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if at_start_only and (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
        ):
            continue
        yield node
        yield from _nodes(node, at_start_only)


@pytest.mark.parametrize("name", MODULES)
def test_services_import_common_and_stubs_and_never_each_other(name: str) -> None:
    parts = name.split(".")
    for imported in imports(MODULES[name]):
        if not imported.startswith("services."):
            continue
        assert parts[0] == "services", f"{name} is what clients install; it must not import {imported}"
        own, other = parts[1] if len(parts) > 1 else "", imported.split(".")[1]
        allowed = {"common", own} | JOINS.get(own, set())
        assert other in allowed, f"{name} imports {imported}; services may import services.common and the stubs only"


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("headrace")])
def test_the_client_starts_without_any_extra(name: str) -> None:
    allowed = CLIENT_PACKAGES | {"headrace"} | set(sys.stdlib_module_names) | PACKAGE_READERS.get(name, set())
    for imported in imports(MODULES[name], at_start_only=True):
        assert imported.split(".")[0] in allowed, f"{name} imports {imported}, which `pip install headrace` lacks"
        assert imported not in PACKAGE_READERS, f"{name} imports {imported} at start; import it when it is needed"


@pytest.mark.parametrize("name", MODULES)
def test_each_vendor_sdk_is_imported_by_its_adapter_only(name: str) -> None:
    for imported in imports(MODULES[name]):
        homes = ADAPTERS.get(imported.split(".")[0])
        if homes is not None:
            at_home = any(name == home or (home.endswith(".") and f"{name}.".startswith(home)) for home in homes)
            assert at_home, f"{name} imports {imported}; only {', '.join(homes)} may"


@pytest.mark.parametrize("name", sorted(PURE))
def test_pure_cores_read_no_clock_and_do_no_io(name: str) -> None:
    allowed = PURE[name] | {"services.common.errors"}
    for imported in imports(MODULES[name]):
        top = imported.split(".")[0]
        standard = top in sys.stdlib_module_names and top not in IMPURE
        assert standard or imported in allowed, f"{name} is a pure core; it must not import {imported}"
