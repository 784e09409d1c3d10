"""Writes tuned prompts in the forms of other programs: PEFT, transformers, vLLM, plain text and ONNX.

Every export is read back and compared with fedbbpt's own scores before it is kept. What a program cannot express is
refused.
"""
