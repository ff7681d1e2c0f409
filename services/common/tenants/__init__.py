"""Who calls, and what he may: tenants from a file, their API keys and tokens."""
