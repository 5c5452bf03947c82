"""The one exception of the package."""

from __future__ import annotations


class Error(RuntimeError):
    """What the library refused: the message says where, what was expected and found, and what to do."""

    def __init__(self, message: str, code: str = "invalid_argument", node: str = "", hint: str = "") -> None:
        super().__init__(message)
        #: "invalid_argument" (of a call), "error" (a model, file, option or machine), "out_of_memory" or
        #: "internal_error" (a bug of Halfstep)
        self.code = code
        #: the ONNX node at fault, "" where none is
        self.node = node
        #: what to do, as the message says; "" where it says no such thing
        self.hint = hint
