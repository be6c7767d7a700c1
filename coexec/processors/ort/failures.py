"""What ONNX Runtime's error texts mean, in plain words."""

from __future__ import annotations

import re

IMPLEMENTATION = re.compile(r"Could not find an implementation for (\S+) node")
FALLBACK = "fallback to CPU EP has been explicitly disabled"
WHILE_RUNNING = re.compile(
    r"while running (\S+) node\. Name:'([^']*)' Status Message: (.*)", re.DOTALL
)
STATUS = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
NEWER = re.compile(r"only \*guarantees\* support.* Opset (\d+) is under development", re.DOTALL)
CONDITION = re.compile(r"^.*/onnxruntime_src/.* was false\. ?(.*)$", re.DOTALL)
PLACE = re.compile(r"/onnxruntime_src/\S+:\d+ .*?\) (?:const )?(?:\[with .*?\] )?")
LONGEST = 200


def refusal(error: Exception, device: str) -> str:
    """Why a session could not be made."""
    text = str(error)
    if match := IMPLEMENTATION.search(text):
        return f"ONNX Runtime has no implementation of {match[1]} for these types"
    if match := NEWER.search(text):
        return f"ONNX Runtime does not know opset {match[1]} yet"
    if FALLBACK in text:
        return f"{device} does not execute it with these types, shapes and attributes"
    return f"ONNX Runtime: {_short(text)}"


def failure(error: Exception) -> str:
    """What went wrong while a session ran, with the node's name where it is told."""
    text = str(error)
    if match := WHILE_RUNNING.search(text):
        return f"node {match[2]!r} ({match[1]}) failed: {_short(match[3])}"
    return _short(text)


def _short(text: str) -> str:
    told = CONDITION.sub(r"\1", text) or text
    line = " ".join(PLACE.sub("", STATUS.sub("", told)).split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} ..."
