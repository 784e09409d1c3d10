"""The cost of rounds: their time and their bytes, with clients that compute nothing."""
