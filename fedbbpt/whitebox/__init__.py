"""The models that FedSP trains locally (arXiv 2311.06805): the full model at its owner, the auxiliary one at clients.

Only this package and `ptm.models` import torch and transformers. Methods see interfaces.WhiteBox.
"""
