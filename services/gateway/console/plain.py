"""Messages as the console's page reads them."""

from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message


def plain(message: Message) -> dict[str, Any]:
    """Protobuf's JSON form with the protos' own names; what is 0 or empty is there, too."""
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
