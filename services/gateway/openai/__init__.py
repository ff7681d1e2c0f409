"""The OpenAI-compatible HTTP surface: models, completions, chat, embeddings, files and batches below /v1."""
