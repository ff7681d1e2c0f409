"""The console: a web page over what this gateway, or single replica, sees. Its sources are in console/ at the root."""
