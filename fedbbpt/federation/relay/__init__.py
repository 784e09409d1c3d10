"""Relays: to the clients of a site a coordinator, and to the coordinator above one client, which sends their sum."""
