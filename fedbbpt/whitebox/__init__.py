"""Models that are trained where they stand, which FedSP needs: the owner's full one, and the clients' auxiliary one.

Beside `ptm.backends`, torch and transformers are imported here and nowhere else. Methods see interfaces.WhiteBox.
"""
