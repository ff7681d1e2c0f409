"""From what gateways, workers and the broker tell to what the policy sees."""
