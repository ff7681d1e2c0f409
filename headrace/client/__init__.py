"""The Python client: tensors in, tensors out; prompts in, text out."""
