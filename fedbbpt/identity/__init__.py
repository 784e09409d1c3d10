"""Members and what they may do: roles, tokens, certificates and the authority that issues them."""
