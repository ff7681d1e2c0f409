"""Headrace: what leaves the server side — generated stubs, the Python client and the command line."""

from headrace.client.errors import HeadraceError
from headrace.client.inference import AsyncClient, Client, InferResult
from headrace.client.text import TextPiece, TextResult
from headrace.client.tls import Tls

__all__ = ["AsyncClient", "Client", "HeadraceError", "InferResult", "TextPiece", "TextResult", "Tls"]
