"""The console: a web page over what this gateway sees. Its sources are in console/ at the root."""
