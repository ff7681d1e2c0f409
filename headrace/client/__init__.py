"""The Python client: tensors in, tensors out."""
