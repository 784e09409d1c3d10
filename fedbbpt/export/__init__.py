"""Writes tuned prompts in the forms of other programs: PEFT, transformers, vLLM, plain text and ONNX.

Every export that another program computes with is read back and compared with fedbbpt's own numbers before it is kept;
plain text has nothing to compare. What a program cannot express is refused.
"""
