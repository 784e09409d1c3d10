"""Web pages and HTTP endpoints of fedbbpt, which the extra `web` brings. Nothing in them is loaded from elsewhere."""
