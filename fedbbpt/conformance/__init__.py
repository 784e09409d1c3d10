"""Whether a PtmService is one, asked from outside: it may be in any language, and nobody gets to see its weights.

Cases are data (cases/*.toml). A case either makes calls and says what each has to give, or names a relation: mostly two
ways to ask for the same scores, which have to agree whatever the model is.
"""
