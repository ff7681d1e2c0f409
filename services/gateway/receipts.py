"""Receipts as clients see them."""

import json

from headrace.v1.reply_pb2 import Receipt


def receipt_json(receipt: Receipt) -> str:
    """The receipt as clients see it: times in microseconds."""
    return json.dumps(
        {
            "queue_us": receipt.queue_us,
            "batch_us": receipt.batch_us,
            "compute_us": receipt.compute_us,
            "batch_rows": receipt.batch_rows,
            "batch_requests": receipt.batch_requests,
            "model_version": receipt.model_version,
        },
        separators=(",", ":"),
    )
