"""Receipts as clients see them."""

from headrace.v1.reply_pb2 import Receipt


def compute_seconds(receipt: Receipt, rows: int) -> float:
    """A request's part of the run that it shared with its batch."""
    return receipt.compute_us / 1e6 * rows / max(rows, receipt.batch_rows)


def receipt_json(receipt: Receipt) -> str:
    """The receipt as clients see it: times in microseconds. An ensemble's has its steps, too."""
    # Written out: all values are integers, and the json module costs more than the rest of the answer.
    return (
        f'{{"queue_us":{receipt.queue_us},"batch_us":{receipt.batch_us},"compute_us":{receipt.compute_us},'
        f'"batch_rows":{receipt.batch_rows},"batch_requests":{receipt.batch_requests},'
        f'"model_version":{receipt.model_version}{_stages(receipt) if receipt.stages else ""}}}'
    )


def _stages(receipt: Receipt) -> str:
    # Model names are letters, digits, '.', '_' and '-': nothing to escape.
    stages = (
        f'{{"model":"{stage.model}","version":{stage.version},"compute_us":{stage.compute_us}}}'
        for stage in receipt.stages
    )
    return f',"stages":[{",".join(stages)}]'
