"""The queries of deploy/observability: where each stands, which metrics it names, and which labels it needs of them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import promql_parser
import yaml

OBSERVABILITY = Path(__file__).resolve().parents[2] / "deploy" / "observability"
# What Grafana puts in place of its variables.
_VARIABLES = {"$__rate_interval": "1m", "$model": ".*"}


@dataclass(frozen=True)
class Query:
    """One expression, and where it stands: "headrace-requests: Answered requests"."""

    where: str
    expression: str

    def __str__(self) -> str:
        return self.where


@dataclass
class Needs:
    """What an expression needs of Prometheus: metric → the labels that it is selected by, and those grouped by."""

    selected: dict[str, set[str]] = field(default_factory=dict)
    grouped: set[str] = field(default_factory=set)


def queries() -> list[Query]:
    """Every one of every dashboard (of the JSON that Grafana reads) and alert."""
    return [*_of_dashboards(), *_of_alerts()]


def needs(query: Query) -> Needs:
    """Raises ValueError where it is no PromQL."""
    found = Needs()

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.selected.setdefault(node.name or "", set()).update(each.name for each in node.matchers.matchers)
        elif isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            found.grouped.update(node.modifier.labels)
        elif isinstance(node, promql_parser.BinaryExpr) and node.modifier is not None and node.modifier.matching:
            found.grouped.update(node.modifier.matching.labels)

    promql_parser.walk(promql_parser.parse(query.expression), visit)
    return found


def _of_dashboards() -> Iterator[Query]:
    for path in sorted((OBSERVABILITY / "grafana" / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                expression = target["expr"]
                for variable, value in _VARIABLES.items():
                    expression = expression.replace(variable, value)
                yield Query(f"{path.stem}: {panel['title']}", expression)


def _of_alerts() -> Iterator[Query]:
    for group in yaml.safe_load((OBSERVABILITY / "alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            yield Query(rule["alert"], rule["expr"])
